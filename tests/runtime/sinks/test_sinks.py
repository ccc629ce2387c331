"""Sinks: JSON lines, videos, images, status line and window."""

import io
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from kdedge_runtime.drawing.heatmap import HeatStats
from kdedge_runtime.errors import KdedgeError, MissingDependency, SourceError, UsageError
from kdedge_runtime.prediction import Prediction
from kdedge_runtime.sinks.image_folder import ImageFolder
from kdedge_runtime.sinks.json_lines import JsonLinesFile, record
from kdedge_runtime.sinks.status_line import StatusLine
from kdedge_runtime.sinks.video_file import VideoFile
from kdedge_runtime.sinks.window import Window
from kdedge_runtime.sources.image_source import ImageSource
from kdedge_runtime.sources.source import Frame, GroundTruth
from kdedge_runtime.stream.statistics import RunProgress
from kdedge_runtime.util.files import UniqueNames, displayable

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


def _prediction(index: int = 0, name: str = "frame", shade: int = 0, captured_at: float = 0.0) -> Prediction:
    picture = np.full((48, 64, 3), shade, np.uint8)
    return Prediction(
        frame=Frame(index, picture, captured_at, name),
        ranking=(("sign, “stop”", 0.912345), ("tree", 0.05)),
        explained="tree",
        saliency_map=np.ones((2, 2), np.float32),
        heat=HeatStats(0.51234567, 0.25, 0.125, 0.5),
        age_ms=12.3456,
        overlay=picture,
    )


@pytest.fixture
def progress(tmp_path: Path) -> RunProgress:
    return RunProgress(ImageSource(tmp_path))


def test_record_contains_prediction_and_capture_time() -> None:
    assert record(_prediction(7, "cam #7"), age_now_s=1.5, now=NOW) == {
        "frame": 7,
        "name": "cam #7",
        "time": "2026-03-01T11:59:58.500+00:00",
        "age_ms": 12.35,
        "label": "sign, “stop”",
        "p": 0.91234,
        "explained": "tree",
        "left_out": None,
        "heat": {"cx": 0.5123, "cy": 0.25, "area": 0.125, "entropy": 0.5},
    }


def test_missing_map_and_evidence_are_null() -> None:
    assert record(replace(_prediction(), heat=None), 0, NOW)["heat"] is None
    nowhere = record(replace(_prediction(), heat=HeatStats(None, None, 0.0, None)), 0, NOW)["heat"]
    assert nowhere == {"cx": None, "cy": None, "area": 0.0, "entropy": None}


def test_lines_are_flushed_immediately(tmp_path: Path, progress: RunProgress) -> None:
    target = tmp_path / "new" / "out.jsonl"
    with JsonLinesFile(str(target), threading.Event()) as sink:
        for index in range(3):
            sink.write(_prediction(index), progress)
            lines = target.read_text(encoding="utf-8").splitlines()
            assert [json.loads(line)["frame"] for line in lines] == list(range(index + 1))
    assert datetime.fromisoformat(json.loads(lines[0])["time"]).utcoffset() == timedelta(0)


def test_stdout_stays_open(capsys: pytest.CaptureFixture[str], progress: RunProgress) -> None:
    with JsonLinesFile("-", threading.Event()) as sink:
        sink.write(_prediction(), progress)
    print("still open")
    prediction, summary, after = capsys.readouterr().out.splitlines()
    assert json.loads(prediction)["label"] == "sign, “stop”"
    assert list(json.loads(summary)) == ["summary"]
    assert after == "still open"


def test_unwritable_path_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="--jsonl cannot write"):
        JsonLinesFile(str(tmp_path / "file" / "out.jsonl"), threading.Event()).__enter__()


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
            sink.write(_prediction(index, shade=30 * index), progress)
            assert not target.exists(), "no partial video under the final name"
    means, fps, size = _frames_of(target)
    assert means == pytest.approx([30 * index for index in range(8)], abs=6)
    assert (fps, size) == (12.0, (64, 48))
    assert [path.name for path in target.parent.iterdir()] == ["out.mp4"]


@pytest.mark.parametrize("fps", [23.976, 59.94, 66.6667, 119.88, 120.123, 240.04])
def test_any_frame_rate_is_written(tmp_path: Path, progress: RunProgress, fps: float) -> None:
    pytest.importorskip("cv2")
    with VideoFile(tmp_path / "out.mp4", fps, live=False) as sink:
        sink.write(_prediction(), progress)
    assert _frames_of(tmp_path / "out.mp4")[1] == pytest.approx(fps, rel=1e-3)


def test_live_video_keeps_real_time(tmp_path: Path, progress: RunProgress) -> None:
    pytest.importorskip("cv2")
    target = tmp_path / "out.mp4"
    with VideoFile(target, 10.0, live=True) as sink:
        for captured_at, shade in ((100.0, 0), (100.1, 60), (100.5, 120), (100.51, 250), (100.6, 180)):
            sink.write(_prediction(shade=shade, captured_at=captured_at), progress)
    means, _, _ = _frames_of(target)
    assert means == pytest.approx([0, 60, 120, 120, 120, 120, 180], abs=6)


def test_frame_of_another_size_is_resized(tmp_path: Path, progress: RunProgress) -> None:
    pytest.importorskip("cv2")
    with VideoFile(tmp_path / "out.mp4", 10.0, live=False) as sink:
        sink.write(_prediction(), progress)
        sink.write(replace(_prediction(1), overlay=np.full((96, 128, 3), 200, np.uint8)), progress)
    means, _, _ = _frames_of(tmp_path / "out.mp4")
    assert means == pytest.approx([0, 200], abs=6)


def test_undrawn_frames_keep_video_timing(tmp_path: Path, progress: RunProgress) -> None:
    pytest.importorskip("cv2")
    with VideoFile(tmp_path / "out.mp4", 10.0, live=False) as sink:
        for index, shade in ((0, 0), (1, None), (2, None), (3, 200)):
            sink.write(_prediction(index, shade=shade) if shade is not None else _undrawn(index), progress)
    assert _frames_of(tmp_path / "out.mp4")[0] == pytest.approx([0, 200, 200, 200], abs=6)


def _undrawn(index: int) -> Prediction:
    return replace(_prediction(index), saliency_map=None, heat=None, left_out="cadence", overlay=None)


def test_long_gaps_are_shortened(tmp_path: Path, progress: RunProgress) -> None:
    pytest.importorskip("cv2")
    with VideoFile(tmp_path / "out.mp4", 2.0, live=True) as sink:
        for captured_at in (0.0, 3600.0, 3600.5):
            sink.write(_prediction(captured_at=captured_at), progress)
    assert 10 * 2 < len(_frames_of(tmp_path / "out.mp4")[0]) < 10 * 2 + 5


def test_failed_run_keeps_its_video(tmp_path: Path, progress: RunProgress) -> None:
    pytest.importorskip("cv2")
    with pytest.raises(SourceError), VideoFile(tmp_path / "out.mp4", 10.0, live=False) as sink:
        sink.write(_prediction(), progress)
        raise SourceError("gone")
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]
    assert len(_frames_of(tmp_path / "out.mp4")[0]) == 1


def test_video_ends_before_the_disk_is_full(
    tmp_path: Path, progress: RunProgress, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("cv2")
    with VideoFile(tmp_path / "out.mp4", 10.0, live=False) as sink:
        sink.write(_prediction(0), progress)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2**20))
        monkeypatch.setattr(sink, "_next_check", 0.0)
        with pytest.raises(KdedgeError, match=r"nearly full \(1 MB free\).*is playable: 1 frames"):
            sink.write(_prediction(1), progress)
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
        sink.write(_prediction(0), progress)
    assert (tmp_path / "out.mp4").read_bytes() == b"an earlier film"
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]


def test_video_is_playable_after_encoder_failure(tmp_path: Path, progress: RunProgress) -> None:
    pytest.importorskip("cv2")
    with pytest.raises(KdedgeError, match="cannot write"), VideoFile(tmp_path / "out.mp4", 10.0, live=False) as sink:
        for index in range(20):
            sink.write(_prediction(index), progress)
        shutil.rmtree(sink._segment.parent)
        sink.write(_prediction(20), progress)
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
            sink.write(_prediction(shade=shade), progress)
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


def test_last_line_is_the_summary(tmp_path: Path, progress: RunProgress) -> None:
    with JsonLinesFile(str(tmp_path / "a"), threading.Event()) as sink:
        for prediction in (_prediction(0), _undrawn(1)):
            progress.count(prediction)
            sink.write(prediction, progress)
    first, second, last = map(json.loads, (tmp_path / "a").read_text().splitlines())
    assert (first["explained"], first["left_out"]) == ("tree", None)
    assert (second["explained"], second["left_out"], second["heat"]) == (None, "cadence", None)
    figures = last["summary"]
    assert (figures["frames"], figures["explained"], figures["left_out"]) == (2, 1, {"cadence": 1})
    assert figures["reconnects"] == 0
    assert set(figures["ms"]["age"]) == {"p50", "p95", "p99"}


def test_synthetic_frames_have_ground_truth() -> None:
    prediction = _prediction()
    frame = replace(prediction.frame, truth=GroundTruth("stop", (16, 12, 48, 48)))
    assert record(replace(prediction, frame=frame), 0, NOW)["truth"] == {
        "label": "stop",
        "box": [0.25, 0.25, 0.75, 1.0],
    }


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes need POSIX")
def test_named_pipe_is_supported(tmp_path: Path, progress: RunProgress) -> None:
    os.mkfifo(tmp_path / "pipe")
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.extend((tmp_path / "pipe").read_text().splitlines()))
    reader.start()
    with JsonLinesFile(str(tmp_path / "pipe"), threading.Event()) as sink:
        sink.write(_prediction(3), progress)
    reader.join(5)
    assert [json.loads(line).get("frame") for line in read] == [3, None]


def test_full_disk_leaves_complete_lines(tmp_path: Path) -> None:
    program = (
        "import resource, sys, threading\n"
        "from pathlib import Path\n"
        "from test_sinks import _prediction, JsonLinesFile, RunProgress, ImageSource, KdedgeError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "progress = RunProgress(ImageSource(Path('.')))\n"
        "try:\n"
        "    with JsonLinesFile('a.jsonl', threading.Event()) as sink:\n"
        "        for index in range(100):\n"
        "            sink.write(_prediction(index), progress)\n"
        "except KdedgeError as error:\n"
        "    print(error)"
    )
    pytest.importorskip("resource", reason="resource limits need POSIX")
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert "--jsonl cannot write to a.jsonl: File too large" in done.stdout
    assert "Traceback" not in done.stderr
    lines = (tmp_path / "a.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["frame"] for line in lines] == list(range(len(lines)))
    assert 2 <= len(lines) < 10


def test_overlays_are_named_after_their_images(tmp_path: Path, progress: RunProgress) -> None:
    with ImageFolder(tmp_path / "out", names_differ=False) as sink:
        for name, shade in (
            ("a/1.png", 0),
            ("b/1.png", 100),
            ("b/1.jpg", 200),
            ("film.v2-000001", 50),
            ("film.v2-000002", 60),
        ):
            sink.write(_prediction(name=name, shade=shade), progress)
    written = {
        path.relative_to(tmp_path / "out").as_posix(): round(np.asarray(Image.open(path)).mean())
        for path in (tmp_path / "out").rglob("*.jpg")
    }
    assert written == {
        "a/1.jpg": 0,
        "b/1.jpg": 100,
        "b/1-2.jpg": 200,
        "film.v2-000001.jpg": 50,
        "film.v2-000002.jpg": 60,
    }


def test_numbered_frames_replace_existing_files(tmp_path: Path, progress: RunProgress) -> None:
    with ImageFolder(tmp_path / "out", names_differ=True) as sink:
        for name, shade in (("film.v2-000001", 50), ("film.v2-000002", 60), ("film.v2-000001", 200)):
            sink.write(_prediction(name=name, shade=shade), progress)
    written = {path.name: round(np.asarray(Image.open(path)).mean()) for path in (tmp_path / "out").iterdir()}
    assert written == {"film.v2-000001.jpg": 200, "film.v2-000002.jpg": 60}


@pytest.mark.parametrize("names_differ", [True, False])
def test_long_escaped_names_are_shortened(tmp_path: Path, progress: RunProgress, names_differ: bool) -> None:
    name = displayable(os.fsdecode(b"\xe9" * 200))
    with ImageFolder(tmp_path / "out", names_differ=names_differ) as sink:
        for ending in ("x", "y"):
            sink.write(_prediction(name=f"{name}/{name}{ending}.png"), progress)
    files = list((tmp_path / "out").rglob("*.jpg"))
    assert len({path.name for path in files}) == 2, "names stay different"
    assert all(path.name.startswith("\\xe9") and len(path.name.encode()) <= 255 for path in files)


def test_names_are_unique_ignoring_case() -> None:
    names = UniqueNames()
    assert [names.take(stem, ".png") for stem in ("a", "A", "a-2", "a")] == ["a.png", "A-2.png", "a-2-2.png", "a-3.png"]


def test_repeated_name_is_found_in_constant_time() -> None:
    names, started = UniqueNames(), time.perf_counter()
    assert [names.take("a", ".png") for _ in range(5_000)][-1] == "a-5000.png"
    assert time.perf_counter() - started < 2


def test_status_line_shows_progress_and_is_cleared(tmp_path: Path, red_spot: np.ndarray) -> None:
    for index in range(4):
        Image.fromarray(red_spot).save(tmp_path / f"{index}.png")
    terminal = io.StringIO()
    with ImageSource(tmp_path) as source:
        progress = RunProgress(source)
        with StatusLine(terminal) as sink:
            sink.write(_prediction(1), progress)
            sink.write(_prediction(2), progress)
    shown = terminal.getvalue().split("\r\x1b[2K")
    assert shown[1].startswith("frame 2/4 (50 %)")
    assert "91 %" in shown[1]
    assert shown[2:] == [""], "at most five updates per second, and cleared at the end"


def test_untrusted_labels_are_escaped_on_the_terminal(progress: RunProgress) -> None:
    prediction = replace(_prediction(), ranking=(("stop\x1b[2J\nsign\x9b1m", 0.9),))
    progress.count(prediction)
    terminal = io.StringIO()
    with StatusLine(terminal) as sink:
        sink.write(prediction, progress)
    shown = terminal.getvalue().split("\r\x1b[2K")[1]
    assert r"stop\x1b[2J\nsign\x9b1m 90 %" in shown
    assert progress.summary().table().splitlines()[-1] == r"predictions: stop\x1b[2J\nsign\x9b1m 1"


def test_window_error_names_the_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    cv2 = pytest.importorskip("cv2")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(UsageError, match="--view 8080"):
        Window(threading.Event()).__enter__()
    if "GUI:                           NONE" not in cv2.getBuildInformation():
        pytest.skip("this OpenCV has windows")
    monkeypatch.setitem(os.environ, "DISPLAY", ":99")
    with pytest.raises(MissingDependency, match="pip install opencv-python"):
        Window(threading.Event()).__enter__()
