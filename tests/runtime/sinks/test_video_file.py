"""Predictions as a video."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from toy_predictions import toy_prediction, undrawn_prediction

from kdedge_runtime.errors import KdedgeError, SourceError
from kdedge_runtime.sinks.video_file import VideoFile
from kdedge_runtime.stream.statistics import RunProgress


def _frames_of(path: Path) -> tuple[list[float], float, tuple[int, int]]:
    import cv2

    capture = cv2.VideoCapture(str(path))
    means, size = [], (0, 0)
    while (read := capture.read())[0]:
        means.append(float(read[1].mean()))
        size = read[1].shape[1::-1]
    return means, capture.get(cv2.CAP_PROP_FPS), size


def test_video_contains_each_frame_once(tmp_path: Path, progress: RunProgress) -> None:
    pytest.importorskip("cv2")
    target = tmp_path / "new" / "out.mp4"
    with VideoFile(target, 12.0, live=False) as sink:
        for index in range(8):
            sink.write(toy_prediction(index, shade=30 * index), progress)
            assert not target.exists(), "no partial video under the final name"
    means, fps, size = _frames_of(target)
    assert means == pytest.approx([30 * index for index in range(8)], abs=6)
    assert (fps, size) == (12.0, (64, 48))
    assert [path.name for path in target.parent.iterdir()] == ["out.mp4"]


def test_frames_without_overlay_repeat_the_last_image(tmp_path: Path, progress: RunProgress) -> None:
    pytest.importorskip("cv2")
    target = tmp_path / "out.mp4"
    with VideoFile(target, 12.0, live=False) as sink:
        for index in range(8):
            drawn = toy_prediction(index, shade=30 * index)
            sink.write(drawn if index in (1, 4) else replace(drawn, overlay=None), progress)
    assert _frames_of(target)[0] == pytest.approx([30, 30, 30, 120, 120, 120, 120], abs=6)


@pytest.mark.parametrize("fps", [23.976, 59.94, 66.6667, 119.88, 120.123, 240.04])
def test_any_frame_rate_is_written(tmp_path: Path, progress: RunProgress, fps: float) -> None:
    pytest.importorskip("cv2")
    with VideoFile(tmp_path / "out.mp4", fps, live=False) as sink:
        sink.write(toy_prediction(), progress)
    assert _frames_of(tmp_path / "out.mp4")[1] == pytest.approx(fps, rel=1e-3)


def test_live_video_keeps_real_time(tmp_path: Path, progress: RunProgress) -> None:
    pytest.importorskip("cv2")
    target = tmp_path / "out.mp4"
    with VideoFile(target, 10.0, live=True) as sink:
        for captured_at, shade in ((100.0, 0), (100.1, 60), (100.5, 120), (100.51, 250), (100.6, 180)):
            sink.write(toy_prediction(shade=shade, captured_at=captured_at), progress)
    means, _, _ = _frames_of(target)
    assert means == pytest.approx([0, 60, 120, 120, 120, 120, 180], abs=6)


def test_frame_of_another_size_is_resized(tmp_path: Path, progress: RunProgress) -> None:
    pytest.importorskip("cv2")
    with VideoFile(tmp_path / "out.mp4", 10.0, live=False) as sink:
        sink.write(toy_prediction(), progress)
        sink.write(replace(toy_prediction(1), overlay=np.full((96, 128, 3), 200, np.uint8)), progress)
    means, _, _ = _frames_of(tmp_path / "out.mp4")
    assert means == pytest.approx([0, 200], abs=6)


def test_undrawn_frames_keep_video_timing(tmp_path: Path, progress: RunProgress) -> None:
    pytest.importorskip("cv2")
    with VideoFile(tmp_path / "out.mp4", 10.0, live=False) as sink:
        for index, shade in ((0, 0), (1, None), (2, None), (3, 200)):
            sink.write(toy_prediction(index, shade=shade) if shade is not None else undrawn_prediction(index), progress)
    assert _frames_of(tmp_path / "out.mp4")[0] == pytest.approx([0, 0, 0, 200], abs=6)


def test_long_gaps_are_shortened(tmp_path: Path, progress: RunProgress) -> None:
    pytest.importorskip("cv2")
    with VideoFile(tmp_path / "out.mp4", 2.0, live=True) as sink:
        for captured_at in (0.0, 3600.0, 3600.5):
            sink.write(toy_prediction(captured_at=captured_at), progress)
    assert 10 * 2 < len(_frames_of(tmp_path / "out.mp4")[0]) < 10 * 2 + 5


def test_failed_run_keeps_its_video(tmp_path: Path, progress: RunProgress) -> None:
    pytest.importorskip("cv2")
    with pytest.raises(SourceError), VideoFile(tmp_path / "out.mp4", 10.0, live=False) as sink:
        sink.write(toy_prediction(), progress)
        raise SourceError("gone")
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]
    assert len(_frames_of(tmp_path / "out.mp4")[0]) == 1


def test_video_ends_before_the_disk_is_full(
    tmp_path: Path, progress: RunProgress, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("cv2")
    with VideoFile(tmp_path / "out.mp4", 10.0, live=False) as sink:
        sink.write(toy_prediction(0), progress)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2**20))
        monkeypatch.setattr(sink, "_next_check", 0.0)
        with pytest.raises(KdedgeError, match=r"nearly full \(1 MB free\).*is playable: 1 frame"):
            sink.write(toy_prediction(1), progress)
    assert len(_frames_of(tmp_path / "out.mp4")[0]) == 1


def test_full_disk_at_start_keeps_earlier_video(
    tmp_path: Path, progress: RunProgress, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("cv2")
    (tmp_path / "out.mp4").write_bytes(b"an earlier film")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2**20))
    with (
        pytest.raises(KdedgeError, match=r"nearly full \(1 MB free\).*Nothing was recorded"),
        VideoFile(tmp_path / "out.mp4", 10.0, live=False) as sink,
    ):
        sink.write(toy_prediction(0), progress)
    assert (tmp_path / "out.mp4").read_bytes() == b"an earlier film"
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]


def test_video_is_playable_after_encoder_failure(tmp_path: Path, progress: RunProgress) -> None:
    pytest.importorskip("cv2")
    with pytest.raises(KdedgeError, match="cannot write"), VideoFile(tmp_path / "out.mp4", 10.0, live=False) as sink:
        for index in range(20):
            sink.write(toy_prediction(index), progress)
        shutil.rmtree(sink._segment.parent)
        sink.write(toy_prediction(20), progress)
    assert len(_frames_of(tmp_path / "out.mp4")[0]) == 20
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]


def test_run_without_frames_keeps_earlier_video(tmp_path: Path) -> None:
    pytest.importorskip("cv2")
    (tmp_path / "out.mp4").write_bytes(b"an earlier film")
    with VideoFile(tmp_path / "out.mp4", 10.0, live=False):
        pass
    assert (tmp_path / "out.mp4").read_bytes() == b"an earlier film"


@pytest.mark.parametrize("has_links", [True, False])
def test_earlier_videos_are_numbered(
    tmp_path: Path, progress: RunProgress, monkeypatch: pytest.MonkeyPatch, has_links: bool
) -> None:
    pytest.importorskip("cv2")
    if not has_links:

        def refuse(self: Path, target: Path) -> None:
            raise PermissionError(1, "Operation not permitted")

        monkeypatch.setattr(Path, "hardlink_to", refuse)
    for shade in (0, 80, 160):
        with VideoFile(tmp_path / "out.mp4", 10.0, live=False) as sink:
            sink.write(toy_prediction(shade=shade), progress)
    shades = {path.name: _frames_of(path)[0][0] for path in tmp_path.iterdir()}
    assert shades == {
        "out-1.mp4": pytest.approx(0, abs=6),
        "out-2.mp4": pytest.approx(80, abs=6),
        "out.mp4": pytest.approx(160, abs=6),
    }


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting a small disk needs root")
def test_restart_on_full_disk_keeps_video(tmp_path: Path, video: Path, model_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=17m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("this root cannot mount")
    try:
        (disk / "seen.mp4").write_bytes(video.read_bytes())
        (disk / "filling").write_bytes(bytes(2 * 2**20))
        program = "from kdedge_runtime.cli.main import main; raise SystemExit(main())"
        arguments = [model_path, "--source", video, "-o", disk / "seen.mp4"]
        done = subprocess.run([sys.executable, "-c", program, *map(str, arguments)], capture_output=True, text=True)
        assert done.returncode == 1
        assert "nearly full" in done.stderr
        assert (disk / "seen.mp4").read_bytes() == video.read_bytes()
        assert sorted(path.name for path in disk.iterdir()) == ["filling", "seen.mp4"]
    finally:
        subprocess.run(["umount", disk], check=True)
