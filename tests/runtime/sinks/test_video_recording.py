"""Recordings survive `kill -9`, and temporary files are removed by the next process."""

import io
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from video_frames import frames_of

from kdedge_runtime.cli.main import main
from kdedge_runtime.sinks.fragmented_mp4 import FragmentWriter
from kdedge_runtime.util import files
from kdedge_runtime.util.files import atomic_path, atomic_write
from kdedge_runtime.util.temporary_files import scratch_folder

cv2 = pytest.importorskip("cv2", reason="videos need OpenCV")
pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and locks need POSIX")
RUN = [sys.executable, "-c", "import sys; from kdedge_runtime.cli.main import main; sys.exit(main())"]


def film(path: Path, greys: list[int], fps: float = 12.0) -> bytes:
    """Return a complete MP4 written by OpenCV."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), fps, (64, 48))
    for gray in greys:
        writer.write(np.full((48, 64, 3), gray, np.uint8))
    writer.release()
    return path.read_bytes()


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.05)


@pytest.mark.parametrize("fps", [12.0, 23.976, 119.88])
def test_truncation_loses_only_the_last_fragment(tmp_path: Path, fps: float) -> None:
    greys = [[0, 40], [80, 120, 160], [200]]
    ends = []
    with (tmp_path / "all.mp4").open("wb", buffering=0) as file:
        writer = FragmentWriter(file)
        for part in greys:
            assert writer.append(film(tmp_path / "part.mp4", part, fps)) == len(part)
            ends.append(file.tell())
    whole = (tmp_path / "all.mp4").read_bytes()
    assert frames_of(tmp_path / "all.mp4") == pytest.approx([0, 40, 80, 120, 160, 200], abs=6)
    capture = cv2.VideoCapture(str(tmp_path / "all.mp4"))
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(fps, rel=1e-3)
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 6
    for end, left in zip(ends, (2, 5, 6), strict=True):
        (tmp_path / "cut.mp4").write_bytes(whole[:end])
        assert len(frames_of(tmp_path / "cut.mp4")) == left


class Dying(io.FileIO):
    """File whose process is killed after a number of bytes."""

    left = 0

    def write(self, content: bytes) -> int:  # type: ignore[override]
        if len(content) > self.left:
            super().write(content[: self.left])
            raise SystemExit
        self.left -= len(content)
        return super().write(content)


@pytest.mark.parametrize("taken_bytes", [0, 4, 20, 60, 110])
def test_interrupted_write_loses_only_its_fragment(tmp_path: Path, taken_bytes: int) -> None:
    with Dying(tmp_path / "all.mp4", "wb") as file:
        file.left = 10**9
        writer = FragmentWriter(file)  # type: ignore[arg-type]
        for greys in ([0, 40], [80, 120]):
            writer.append(film(tmp_path / "part.mp4", greys))
        last = film(tmp_path / "part.mp4", [160, 200])
        file.left = taken_bytes
        with pytest.raises(SystemExit):
            writer.append(last)
    assert len(frames_of(tmp_path / "all.mp4")) == 4


def test_invalid_film_is_not_appended(tmp_path: Path) -> None:
    whole = film(tmp_path / "part.mp4", [0, 40])
    with (tmp_path / "all.mp4").open("wb", buffering=0) as file:
        writer = FragmentWriter(file)
        writer.append(whole)
        end = file.tell()
        damaged = [whole.replace(kind, b"xxxx", 1) for kind in (b"mdia", b"stbl", b"stts")]
        for content in (b"", b"nonsense", whole[:-10], whole[: len(whole) // 2], *damaged):
            with pytest.raises(ValueError):  # any fault
                writer.append(content)
        assert file.tell() == end


def test_long_recording_has_correct_duration(tmp_path: Path) -> None:
    """Durations above 49 days exceed 32 bits of milliseconds."""
    month = film(tmp_path / "part.mp4", [0, 40])
    at = month.index(b"stts") + 16
    assert month[at - 4 : at] == (2).to_bytes(4, "big"), "one run of two frames"
    month = month[:at] + (2**32 - 1).to_bytes(4, "big") + month[at + 4 :]
    with (tmp_path / "all.mp4").open("wb", buffering=0) as file:
        writer = FragmentWriter(file)
        for _ in range(8):
            assert writer.append(month) == 2
    assert len(frames_of(tmp_path / "all.mp4")) == 16


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Set the temporary folder of this process and its subprocesses."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield folder
    monkeypatch.setattr(tempfile, "tempdir", None)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGABRT])
def test_killed_recording_is_playable_and_kept(
    number: int, model_path: Path, tmp_path: Path, scratch: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = [*RUN, str(model_path), "--source", "synthetic:", "-o", str(out / "film.mp4")]
    running = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    part = out / "film.part.mp4"
    until(lambda: part.exists() and part.stat().st_size > 2000)
    assert main([str(model_path), "--source", "synthetic:", "-o", str(out / "film.mp4")]) == 2, "one video per run"
    running.send_signal(number)
    running.wait()
    assert [path.name for path in out.iterdir()] == ["film.part.mp4"]
    count = len(frames_of(part))
    assert count > 20
    assert main([str(model_path), "--source", "synthetic:", "--max-frames", "3", "-o", str(out / "film.mp4")]) == 0
    assert "film-1.mp4" in capfd.readouterr().err
    assert sorted(path.name for path in out.iterdir()) == ["film-1.mp4", "film.mp4"]
    assert len(frames_of(out / "film-1.mp4")) == count
    assert list(scratch.glob("kdedge-*")) == []


def killed_within(program: str, *arguments: object) -> None:
    """Run a program until its first output, then kill it."""
    command = [sys.executable, "-c", f"import sys, time\nfrom pathlib import Path\n{program}", *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        running.kill()


def test_only_abandoned_scratch_folders_are_removed(scratch: Path) -> None:
    killed_within(
        "from kdedge_runtime.util.temporary_files import scratch_folder\n"
        "with scratch_folder('bundle') as folder:\n"
        "    (folder / 'model.onnx').write_bytes(bytes(1000))\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(60)"
    )
    assert len(list(scratch.rglob("model.onnx"))) == 1
    with scratch_folder("bundle") as ours:
        assert list(scratch.rglob("model.onnx")) == []
        (ours / "model.onnx").touch()
        found: list[bool] = []

        def other() -> None:
            with scratch_folder("bundle"):
                found.append((ours / "model.onnx").exists())

        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert found == [True]
    assert list(scratch.iterdir()) == []


def test_only_abandoned_partial_files_are_removed(tmp_path: Path) -> None:
    killed_within(
        "from kdedge_runtime.util.files import atomic_path\n"
        "with atomic_path(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_bytes(bytes(1000))\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(60)",
        tmp_path / "model.onnx",
    )
    assert len(list(tmp_path.glob(".kdedge-*.onnx"))) == 1
    with atomic_path(tmp_path / "other.onnx") as temporary:
        assert list(tmp_path.glob(".kdedge-*.onnx")) == [temporary]
        atomic_write(tmp_path / "third.onnx", b"third")
        assert temporary.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.onnx", "third.onnx"]


def test_staging_without_locks_closes_the_handle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows cannot rename open files."""
    monkeypatch.setattr(files, "HAS_LOCKS", False)
    before = len(list(Path("/dev/fd").iterdir()))
    with atomic_path(tmp_path / "model.onnx") as temporary:
        temporary.write_bytes(b"model")
        assert len(list(Path("/dev/fd").iterdir())) == before
    assert (tmp_path / "model.onnx").read_bytes() == b"model"
