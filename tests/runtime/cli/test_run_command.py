"""Command line of `kdedge-run`: outputs and exit codes."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from kdedge_runtime.cli.main import main

COMMAND = [sys.executable, "-c", "import sys; from kdedge_runtime.cli.main import main; sys.exit(main())"]


def _lines(path: Path) -> list[dict]:
    """Return the frame lines, without the final summary."""
    *frames, last = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    assert list(last) == ["summary"]
    assert last["summary"]["frames"] == len(frames)
    return frames


def test_images_to_jsonl_and_overlays(model_path: Path, photos: Path, tmp_path: Path, capfd) -> None:
    out = tmp_path / "out"
    code = main([str(model_path), "--source", str(photos), "--jsonl", str(tmp_path / "a.jsonl"), "-o", str(out)])
    captured = capfd.readouterr()
    assert code == 0
    assert captured.out == "", "only data on standard output"
    assert [line["label"] for line in _lines(tmp_path / "a.jsonl")] == ["red", "green", "blue"]
    assert sorted(path.name for path in out.iterdir()) == ["1-red.jpg", "2-green.jpg", "3-blue.jpg"]
    for word in ("onnxruntime", "CPU", "64 × 64 px", "fp32", "map 8 × 8 cam", "3 of 3 frames", "0 dropped"):
        assert word in captured.err


def test_video_to_overlay_video(model_path: Path, video: Path, tmp_path: Path) -> None:
    import cv2

    code = main(
        [str(model_path), "--source", str(video), "-o", str(tmp_path / "o.mp4"), "--jsonl", str(tmp_path / "o")]
    )
    assert code == 0
    assert [line["frame"] for line in _lines(tmp_path / "o")] == list(range(24))
    capture = cv2.VideoCapture(str(tmp_path / "o.mp4"))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 24
    assert capture.get(cv2.CAP_PROP_FPS) == 12


def test_stdout_contains_only_jsonl(model_path: Path, photos: Path) -> None:
    command = [*COMMAND, str(model_path), "--source", str(photos), "--jsonl", "-", "--class", "blue"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    *lines, last = (json.loads(line) for line in done.stdout.splitlines())
    assert [line["explained"] for line in lines] == ["blue"] * 3
    assert set(lines[0]) == {
        *("frame", "name", "time", "age_ms", "label", "p", "familiarity", "unknown", "explained", "skip_reason", "heat")
    }
    assert last["summary"]["frames"] == 3
    assert "3 of 3 frames" in done.stderr


def test_recorded_folder_has_images_and_lines(model_path: Path, photos: Path, tmp_path: Path) -> None:
    command = [*COMMAND, str(model_path), "--source", str(photos), "--record", str(tmp_path / "recorded")]
    subprocess.run([*command, "--record-mb", "5"], capture_output=True, check=True)
    listed = [json.loads(line)["file"] for line in (tmp_path / "recorded/frames.jsonl").read_text().splitlines()]
    assert sorted(listed) == sorted(path.name for path in (tmp_path / "recorded").glob("*.jpg"))
    assert len(listed) == 3


@pytest.mark.parametrize("options", [("--record-mb", "5"), ("--record", "{photos}")])
def test_recording_without_a_folder_of_its_own_is_an_error(
    model_path: Path, photos: Path, options: tuple[str, ...]
) -> None:
    given = [option.format(photos=photos) for option in options]
    done = subprocess.run([*COMMAND, str(model_path), "--source", str(photos), *given], capture_output=True, text=True)
    assert done.returncode == 2 and "--record" in done.stderr


def test_closed_pipe_is_not_an_error(model_path: Path) -> None:
    command = [*COMMAND, str(model_path), "--source", "synthetic:", "--jsonl", "-"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert json.loads(process.stdout.readline())["frame"] >= 0
        process.stdout.close()
        assert process.wait(20) == 0
        assert "Traceback" not in process.stderr.read()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_completes_files_and_summary(number: int, model_path: Path, video: Path, tmp_path: Path) -> None:
    pytest.importorskip("cv2")
    command = [*COMMAND, str(model_path), "--source", "synthetic:", "--jsonl", str(tmp_path / "a.jsonl")]
    command += ["-o", str(tmp_path / "a.mp4")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        lines = tmp_path / "a.jsonl"
        deadline = time.monotonic() + 20
        while not (lines.exists() and lines.read_text().count("\n") > 3) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not (tmp_path / "a.mp4").exists()
        process.send_signal(number)
        assert process.wait(20) == 0
        printed = process.stderr.read()
    assert "frames in" in printed
    assert "p95" in printed
    assert len(_lines(lines)) > 3
    import cv2

    assert cv2.VideoCapture(str(tmp_path / "a.mp4")).read()[0]


def test_view_is_served_during_a_run(model_path: Path) -> None:
    command = [*COMMAND, str(model_path), "--source", "synthetic:", "--view", "0", "--max-frames", "60"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        line = next(line for line in process.stderr if line.startswith("view: "))
        url = line.removeprefix("view: ").strip()
        assert url.startswith("http://127.0.0.1:")
        assert urllib.request.urlopen(url + "snapshot.jpg", timeout=10).read()[:2] == b"\xff\xd8"
        assert process.wait(30) == 0
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(url, timeout=2)


def _fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = main([str(argument) for argument in arguments])
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    return code, errors[0]


def test_expected_failures_print_one_line_and_exit_code(
    model_path: Path, write_model: Callable[..., Path], photos: Path, tmp_path: Path, capsys, monkeypatch
) -> None:
    pictures, run = ("--source", str(photos)), tmp_path / "run"
    run.mkdir()
    (run / "run.json").write_text("{}")
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = str(busy.getsockname()[1])
        cases = [
            (2, "The model file", ("missing.onnx", *pictures)),
            (2, "cannot read", (photos / "notes.txt", *pictures)),
            (2, "is no model file", (photos / "notes.txt",)),
            (2, "There is no source", ("missing.png",)),
            (2, "is a run folder", (run,)),
            (2, "no class 'purple'", (model_path, *pictures, "--class", "purple")),
            (2, "no saliency map", (write_model(method="none"), *pictures, "--class", "red")),
            (
                2,
                "--cadence every=5 needs explanations",
                (write_model(method="none"), *pictures, "--cadence", "every=5"),
            ),
            (2, "--min-fps 15 needs explanations", (write_model(method="none"), *pictures, "--min-fps", "15")),
            (2, "or remove --opacity", (write_model(method="none"), *pictures, "--opacity", "0.4")),
            (2, "no provider 'tpu'", (model_path, *pictures, "--provider", "tpu")),
            (2, "cannot be written as a video", (model_path, *pictures, "-o", "out.mp4")),
            (2, "neither a video", (model_path, *pictures, "-o", "out.avi")),
            (2, "overlaps --source", (model_path, *pictures, "-o", photos)),
            (2, "overlaps --source", (model_path, "--source", photos / "1-red.png", "-o", photos)),
            (2, "overlaps --source", (model_path, "--source", photos / "*.png", "-o", photos)),
            (2, "overlaps --source", (model_path, *pictures, "-o", photos / "seen")),
            (2, "is not a valid", (model_path, *pictures, "--view", "")),
            (2, "in use", (model_path, *pictures, "--view", port)),
            (2, "is not a valid", (model_path, *pictures, "--view", "here")),
            (2, "at least 16", (model_path, *pictures, "--view", "0", "--token", "")),
            (2, "There is no object", (model_path, "--source", "synthetic:unicorn")),
            (2, "Did you mean usb:0", (model_path, "--source", "usb")),
            (2, "--cadence often is not valid", (model_path, *pictures, "--cadence", "often")),
            (2, "--budget-ms needs a --method", (model_path, *pictures, "--budget-ms", "100")),
            (
                2,
                "device profile 'raspberry-pi-44' does not exist",
                (model_path, *pictures, "--device", "raspberry-pi-44"),
            ),
            (5, "The file or folder", (model_path, "--source", "nowhere.mp4")),
            (5, "has no images", (model_path, "--source", photos / "notes.txt")),
            (5, "has no images", (model_path, "--source", model_path)),
            (5, "contains no images", (model_path, "--source", str(tmp_path / "empty"))),
        ]
        (tmp_path / "empty").mkdir()
        for code, message, arguments in cases:
            got, error = _fails(capsys, *arguments)
            assert (got, message in error) == (code, True), error
    monkeypatch.setitem(sys.modules, "cv2", None)
    code, error = _fails(capsys, model_path, "--source", "0")
    assert (code, "opencv-python-headless" in error) == (3, True)


def test_input_video_is_not_overwritten(model_path: Path, video: Path, capsys) -> None:
    before = video.read_bytes()
    code, error = _fails(capsys, model_path, "--source", video, "-o", video)
    assert (code, "overlaps --source" in error) == (2, True)
    code, error = _fails(capsys, model_path, "--source", str(video.with_name("c*.mp4")), "-o", video)
    assert (code, "overlaps --source" in error) == (2, True)
    assert video.read_bytes() == before


def test_unreadable_images_are_named_and_skipped(model_path: Path, photos: Path, tmp_path: Path, capfd) -> None:
    (photos / "2-green.png").write_bytes(b"broken")
    assert main([str(model_path), "--source", str(photos), "--jsonl", str(tmp_path / "a.jsonl")]) == 0
    printed = capfd.readouterr().err
    assert "2-green.png" in printed
    assert "2 of 3 frames" in printed
    assert "1 unreadable" in printed
    assert [line["name"] for line in _lines(tmp_path / "a.jsonl")] == ["1-red.png", "3-blue.png"]


def test_failed_source_keeps_results_and_exits_5(
    model_path: Path, video: Path, tmp_path: Path, capfd, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kdedge_runtime.errors import SourceError
    from kdedge_runtime.sources.video_source import VideoSource

    whole = VideoSource.__iter__

    def breaks(source):
        for frame, _ in zip(whole(source), range(5), strict=False):
            yield frame
        raise SourceError("the disk is gone")

    monkeypatch.setattr(VideoSource, "__iter__", breaks)
    assert main([str(model_path), "--source", str(video), "-o", str(tmp_path / "o.mp4")]) == 5
    printed = capfd.readouterr().err
    assert "5 of 24 frames" in printed
    assert printed.splitlines()[-1] == "error: the disk is gone"
    assert (tmp_path / "o.mp4").stat().st_size > 0
    assert main(["soak", str(model_path), "--source", str(video), "--duration", "10s"]) == 5, (
        "the cause of the early end is reported"
    )
    printed = capfd.readouterr().err
    assert "[✗] duration" in printed
    assert printed.splitlines()[-1] == "error: the disk is gone"


def _camera_program(folder: Path, monkeypatch: pytest.MonkeyPatch, starts_that_fail: set[int]) -> None:
    """Install a fake rpicam-vid that writes ten red frames per start and exits."""
    (folder / "rpicam-vid").write_text(
        f"#!{sys.executable}\n"
        "import sys, time\n"
        "from pathlib import Path\n"
        "options = dict(zip(sys.argv[1:], sys.argv[2:]))\n"
        "pixels = int(options['--width']) * int(options['--height'])\n"
        "starts = Path(__file__).with_name('starts')\n"
        "number = len(starts.read_text()) if starts.exists() else 0\n"
        "starts.write_text('x' * (number + 1))\n"
        f"if number in {starts_that_fail!r}:\n"
        "    sys.exit('ERROR: *** no cameras available ***')\n"
        "for _ in range(10):\n"
        "    planes = bytes([76]) * pixels, bytes([85]) * (pixels // 4), bytes([255]) * (pixels // 4)\n"
        "    sys.stdout.buffer.write(b''.join(planes))\n"
        "    time.sleep(0.03)\n"
    )
    (folder / "rpicam-vid").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    monkeypatch.setitem(sys.modules, "picamera2", None)


@pytest.mark.skipif(os.name != "posix", reason="fake programs are POSIX scripts")
def test_reconnected_camera_continues_and_is_logged(
    model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd
) -> None:
    _camera_program(tmp_path, monkeypatch, starts_that_fail={1})
    lines = tmp_path / "a.jsonl"
    assert main([str(model_path), "--source", "csi:0", "--max-frames", "13", "--jsonl", str(lines)]) == 0
    printed = capfd.readouterr().err
    assert [line["label"] for line in _lines(lines)] == ["red"] * 13, "no fake frames while disconnected"
    assert json.loads(lines.read_text().splitlines()[-1])["summary"]["reconnects"] >= 1
    for words in ("returns no more frames", "reconnected after", " reconnect"):
        assert words in printed


@pytest.mark.skipif(os.name != "posix", reason="fake programs are POSIX scripts")
def test_missing_camera_at_start_is_an_error(
    model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    _camera_program(tmp_path, monkeypatch, starts_that_fail={0})
    code, error = _fails(capsys, model_path, "--source", "csi:0")
    assert (code, "no cameras available" in error, "rpicam-hello --list-cameras" in error) == (5, True, True)
    assert (tmp_path / "starts").read_text() == "x", "once"


@pytest.mark.skipif(os.name != "posix", reason="permissions need POSIX")
def test_unwritable_output_prints_no_traceback(model_path: Path, photos: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "file").write_text("")
    code, error = _fails(capsys, model_path, "--source", photos, "-o", tmp_path / "file" / "out")
    assert (code, str(tmp_path / "file") in error) == (1, True)
