"""Recorded frames: which are chosen, the size limit, and folders of earlier runs."""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_predictions import in_regions, toy_prediction

from kdedge_runtime.errors import KdedgeError, UsageError
from kdedge_runtime.prediction import Prediction
from kdedge_runtime.sinks.frame_recorder import RECORDED, FrameRecorder
from kdedge_runtime.sources.image_source import ImageSource
from kdedge_runtime.sources.source import Source
from kdedge_runtime.stream.statistics import RunProgress
from kdedge_runtime.util.images import read_image


class Clock:
    """Clock that advances by a second per call."""

    def __init__(self) -> None:
        self.at = datetime(2026, 1, 31, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.at += timedelta(seconds=1)
        return self.at


class Video:
    """Source that is timed by its frame rate."""

    live = False
    fps = 10.0


class Camera:
    """Source that is timed by capture times."""

    live = True
    fps = None


def prediction(index: int, p: float, label: str = "cat", shade: int = 0, captured_at: float = 0.0) -> Prediction:
    made = toy_prediction(index, name=f"frame-{index}", shade=shade, captured_at=captured_at)
    return replace(made, ranking=((label, p), ("other", 0.0)))


def noisy(index: int, p: float, side: int = 200) -> Prediction:
    """Return a prediction for a frame whose JPEG has about 60 kB."""
    pixels = np.random.default_rng(index).integers(0, 256, (side, side, 3), np.uint8)
    made = prediction(index, p)
    return replace(made, frame=replace(made.frame, sample=pixels))


def record(
    folder: Path, predictions: Sequence[Prediction], progress: RunProgress, source: Any = None, cap_mb: float = 500
) -> None:
    chosen: Source = source or ImageSource(folder)
    with FrameRecorder(folder, cap_mb, chosen, Clock()) as sink:
        for each in predictions:
            sink.write(each, progress)


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / RECORDED).read_text(encoding="utf-8").splitlines()]


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*.jpg")}


class TestChoice:
    def test_each_single_image_is_recorded_with_its_prediction(self, tmp_path: Path, progress: RunProgress) -> None:
        folder = tmp_path / "out"
        record(folder, [prediction(0, 0.9, shade=50), prediction(1, 0.4, "dog", shade=200)], progress)
        first, second = lines(folder)
        assert (first["label"], first["p"], first["changed"], first["usefulness"]) == ("cat", 0.9, False, 0.1)
        assert (second["label"], second["changed"], second["usefulness"]) == ("dog", True, 1.6)
        assert names(folder) == {first["file"], second["file"]}
        assert read_image(folder / second["file"]).mean() == pytest.approx(200, abs=2)

    def test_least_certain_frame_of_each_second_is_recorded(self, tmp_path: Path, progress: RunProgress) -> None:
        scores = [0.9, 0.8, 0.3, *[0.9] * 7, 0.6, 0.2, *[0.7] * 8]  # two seconds
        record(tmp_path / "a", [prediction(i, p) for i, p in enumerate(scores)], progress, Video())
        assert [line["name"] for line in lines(tmp_path / "a")] == ["frame-2", "frame-11"]

    def test_camera_is_timed_by_its_captures(self, tmp_path: Path, progress: RunProgress) -> None:
        frames = [prediction(i, 0.9 - i / 10, captured_at=t) for i, t in enumerate((0.0, 0.6, 1.1, 5.0))]
        record(tmp_path / "a", frames, progress, Camera())
        assert [line["name"] for line in lines(tmp_path / "a")] == ["frame-1", "frame-2", "frame-3"]

    def test_changed_label_comes_before_low_probability(self, tmp_path: Path, progress: RunProgress) -> None:
        frames = [prediction(0, 0.1), prediction(1, 0.95, "dog"), prediction(2, 0.2, "dog")]
        record(tmp_path / "a", frames, progress, Video())
        assert [line["name"] for line in lines(tmp_path / "a")] == ["frame-1"]

    def test_frame_that_becomes_unknown_is_changed(self, tmp_path: Path, progress: RunProgress) -> None:
        frames = [prediction(0, 0.9), replace(prediction(1, 0.9), unknown=True), prediction(2, 0.9)]
        record(tmp_path / "a", frames, progress)
        flags = [(line["unknown"], line["changed"]) for line in lines(tmp_path / "a")]
        assert flags == [(False, False), (True, True), (False, True)]

    def test_regions_are_recorded_separately(self, tmp_path: Path, progress: RunProgress) -> None:
        record(tmp_path / "a", [in_regions(prediction(0, 0.9), left="cat", right="dog")], progress)
        assert {read_image(tmp_path / "a" / line["file"]).shape for line in lines(tmp_path / "a")} == {(48, 32, 3)}
        assert {line["label"] for line in lines(tmp_path / "a")} == {"cat", "dog"}


class TestLimit:
    def test_least_useful_frames_are_removed(self, tmp_path: Path, progress: RunProgress) -> None:
        scores = np.random.default_rng(0).permutation(60) / 60
        record(tmp_path / "a", [noisy(i, float(p)) for i, p in enumerate(scores)], progress, cap_mb=1)
        used = sum(path.stat().st_size for path in (tmp_path / "a").iterdir())
        kept = [line["p"] for line in lines(tmp_path / "a")]
        assert 0.8e6 < used <= 1e6
        assert 5 < len(kept) < 40 and max(kept) < sorted(scores)[len(kept) + 3]
        assert names(tmp_path / "a") == {line["file"] for line in lines(tmp_path / "a")}

    def test_limit_holds_for_a_folder_that_is_continued(self, tmp_path: Path, progress: RunProgress) -> None:
        record(tmp_path / "a", [noisy(i, 0.5) for i in range(12)], progress, cap_mb=1)
        before = names(tmp_path / "a")
        record(tmp_path / "a", [noisy(i, 0.1) for i in range(100, 104)], progress, cap_mb=1)
        assert sum(path.stat().st_size for path in (tmp_path / "a").iterdir()) <= 1e6
        assert {line["p"] for line in lines(tmp_path / "a")} == {0.5, 0.1}
        assert before & names(tmp_path / "a")

    def test_lines_stay_few_while_frames_are_replaced(self, tmp_path: Path, progress: RunProgress) -> None:
        folder = tmp_path / "a"
        with FrameRecorder(folder, 1, ImageSource(folder), Clock()) as sink:
            for index in range(400):
                sink.write(noisy(index, 0.9 - index / 1000, side=180), progress)
                count = len((folder / RECORDED).read_text(encoding="utf-8").splitlines())
                assert count <= 2 * len(names(folder)) + 101

    @pytest.mark.parametrize("cap_mb", [0.5, float("nan"), float("inf")])
    def test_limit_below_a_megabyte_or_without_end_is_an_error(self, tmp_path: Path, cap_mb: float) -> None:
        with pytest.raises(UsageError, match="1 or more"):
            FrameRecorder(tmp_path / "a", cap_mb, ImageSource(tmp_path))


class TestFolder:
    def test_partial_files_of_a_killed_run_are_removed_and_whole_images_kept(
        self, tmp_path: Path, progress: RunProgress
    ) -> None:
        folder = tmp_path / "a"
        record(folder, [prediction(0, 0.9), prediction(1, 0.8)], progress)
        first, second = lines(folder)
        (folder / ".kdedge-x.jpg").write_bytes(b"partial")
        (folder / RECORDED).write_text(json.dumps(first) + '\n{"file": "' + second["file"][:9], encoding="utf-8")
        record(folder, [prediction(2, 0.7)], progress)
        assert len(names(folder)) == 3
        assert {line["file"] for line in lines(folder)} == names(folder)

    def test_folder_with_other_files_is_left_alone(self, tmp_path: Path, progress: RunProgress) -> None:
        (tmp_path / "photo.jpg").write_bytes(b"mine")
        with pytest.raises(UsageError, match="holds other files"):
            record(tmp_path, [prediction(0, 0.9)], progress)
        assert [path.name for path in tmp_path.iterdir()] == ["photo.jpg"]

    def test_unwritable_folder_is_an_error(self, tmp_path: Path, progress: RunProgress) -> None:
        folder = tmp_path / "a"
        sink = FrameRecorder(folder, 500, ImageSource(folder), Clock())
        with pytest.raises(KdedgeError, match="cannot write"), sink:
            (folder / RECORDED).unlink()
            folder.rmdir()
            folder.write_bytes(b"")
            for index in range(2):
                sink.write(prediction(index, 0.5), progress)
