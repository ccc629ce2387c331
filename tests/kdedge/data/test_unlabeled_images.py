"""Unlabeled images are listed from folders, patterns, shards and videos."""

import io
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from kdedge.data import SkippedSample, StoredSample
from kdedge.data.readers.unlabeled_images import list_unlabeled_images
from kdedge.data.unlabeled import UnlabeledSource
from kdedge_runtime.errors import DataError
from kdedge_runtime.sinks.frame_recorder import RECORDED

FPS, FRAMES = 10, 40


def write_image(path: Path, value: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (12, 10), (value, 0, 128)).save(path)
    return path


def write_video(path: Path) -> Path:
    """Write 4 seconds, each frame with a different gray value, from 0 in steps of 5."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), FPS, (64, 48))
    for index in range(FRAMES):
        writer.write(np.full((48, 64, 3), 5 * index, np.uint8))
    writer.release()
    return path


def samples_of(sources: list[UnlabeledSource]) -> list[StoredSample]:
    found = [sample for source in sources for sample in source.samples]
    return [sample for sample in found if not isinstance(sample, SkippedSample)]


def grays(sources: list[UnlabeledSource]) -> list[int]:
    return [round(float(sample.read().values.mean())) for sample in samples_of(sources)]


class TestFolders:
    def test_folder_is_searched_recursively_for_images_and_videos(self, tmp_path: Path) -> None:
        for name in ("b.png", "deep/er/a.jpg", ".hidden.png"):
            write_image(tmp_path / "more" / name)
        (tmp_path / "more" / "notes.txt").write_text("no image")
        write_video(tmp_path / "more" / "clip.avi")
        images, video = list_unlabeled_images(str(tmp_path / "more"), every_s=1)
        assert [sample.name for sample in samples_of([images])] == ["more/b.png", "more/deep/er/a.jpg"]
        assert (images.is_footage, video.is_footage) == (False, True)
        assert len(samples_of([video])) == 4

    def test_recorded_folder_is_footage(self, tmp_path: Path) -> None:
        write_image(tmp_path / "a.jpg")
        (tmp_path / RECORDED).write_text("{}\n")
        (source,) = list_unlabeled_images(str(tmp_path), every_s=1)
        assert source.is_footage

    def test_pattern_takes_files_and_folders(self, tmp_path: Path) -> None:
        for name in ("day1/a.png", "day2/b.png", "night/c.png"):
            write_image(tmp_path / name)
        (source,) = list_unlabeled_images(str(tmp_path / "day*"), every_s=1)
        assert [Path(sample.name).name for sample in samples_of([source])] == ["a.png", "b.png"]

    def test_shards_give_all_images_whether_labeled_or_not(self, tmp_path: Path) -> None:
        content = write_image(tmp_path / "x" / "a.png", 9).read_bytes()
        with tarfile.open(tmp_path / "more-0.tar", "w") as archive:
            for name, part in (("a.png", content), ("a.cls", b"1"), ("b.png", content)):
                info = tarfile.TarInfo(name)
                info.size = len(part)
                archive.addfile(info, io.BytesIO(part))
        (source,) = list_unlabeled_images(str(tmp_path / "more-*.tar"), every_s=1)
        assert [sample.read().values[0, 0, 0] for sample in samples_of([source])] == [9, 9]

    @pytest.mark.parametrize("location", ["empty", "missing", "*.png"])
    def test_location_without_images_is_an_error(self, tmp_path: Path, location: str) -> None:
        (tmp_path / "empty").mkdir()
        with pytest.raises(DataError, match="Expected a folder of images"):
            list_unlabeled_images(str(tmp_path / location), every_s=1)


class TestVideos:
    @pytest.mark.parametrize(("every_s", "expected"), [(1, [0, 50, 100, 150]), (2, [0, 100]), (0.01, None)])
    def test_one_frame_per_interval(self, tmp_path: Path, every_s: float, expected: list[int] | None) -> None:
        sources = list_unlabeled_images(str(write_video(tmp_path / "clip.avi")), every_s=every_s)
        wanted = expected or [5 * index for index in range(FRAMES)]
        assert np.abs(np.subtract(grays(sources), wanted)).max() <= 2
        assert sources[0].expected == len(wanted)

    def test_frames_can_be_read_in_any_order(self, tmp_path: Path) -> None:
        frames = samples_of(list_unlabeled_images(str(write_video(tmp_path / "clip.avi")), every_s=1))
        assert [sample.read().values.mean() for sample in reversed(frames)] == [
            sample.read().values.mean() for sample in frames
        ][::-1]
        assert len({sample.name for sample in frames}) == len(frames)

    def test_video_that_ends_early_gives_the_frames_before(self, tmp_path: Path) -> None:
        path = write_video(tmp_path / "clip.avi")
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) * 6 // 10])
        (source,) = list_unlabeled_images(str(path), every_s=1)
        found = list(source.samples)
        assert sum(not isinstance(sample, SkippedSample) for sample in found) >= 2
        assert isinstance(found[-1], SkippedSample) and "clip.avi" in found[-1].name

    def test_file_that_is_no_video_gives_no_frames(self, tmp_path: Path) -> None:
        path = tmp_path / "clip.mp4"
        path.write_bytes(b"no video")
        (source,) = list_unlabeled_images(str(path), every_s=1)
        (only,) = source.samples
        assert isinstance(only, SkippedSample)
