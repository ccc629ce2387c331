"""Sources that block while opening do not block the process."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from kdedge_runtime.errors import SourceError
from kdedge_runtime.sources.timed_opening import open_with_timeout

pytest.importorskip("cv2", reason="videos and streams need OpenCV")
pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and named pipes need POSIX")
RUN = [sys.executable, "-c", "import sys; from kdedge_runtime.cli.main import main; sys.exit(main())"]


@pytest.mark.parametrize("kind", ["pipe", "http", "rtsp"])
def test_sigterm_ends_run_while_source_opens(kind: str, model_path: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        os.mkfifo(tmp_path / "film.mp4")
        source = {
            "pipe": str(tmp_path / "film.mp4"),
            "http": f"http://127.0.0.1:{port}/film.mp4",
            "rtsp": f"rtsp://127.0.0.1:{port}/camera",
        }[kind]
        command = [*RUN, str(model_path), "--source", source, "--jsonl", os.devnull]
        running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert running.stderr is not None
        running.stderr.readline()  # the model is loaded and the source is opening
        time.sleep(0.5)
        assert running.poll() is None
        started = time.monotonic()
        running.send_signal(signal.SIGTERM)
        _, printed = running.communicate(timeout=30)
        assert time.monotonic() - started < 5
        assert running.returncode == 0
        assert "Traceback" not in printed


class Scripted:
    """Source that opens on command."""

    name, live, fps, expected, dropped, unreadable, reconnects = "test", False, None, None, 0, 0, 0

    def __init__(self, error: Exception | None = None) -> None:
        self.let = threading.Event()
        self.closed = threading.Event()
        self._error = error

    def __enter__(self) -> "Scripted":
        self.let.wait()
        if self._error is not None:
            raise self._error
        return self

    def __exit__(self, *_: object) -> None:
        self.closed.set()

    def __iter__(self) -> object:
        return iter(())


def test_opened_source_is_closed_after_block() -> None:
    source = Scripted()
    source.let.set()
    with open_with_timeout(source, threading.Event()) as is_open:  # type: ignore[arg-type]
        assert is_open
        assert not source.closed.is_set()
    assert source.closed.is_set()


def test_late_source_is_closed() -> None:
    source, stop = Scripted(), threading.Event()
    stop.set()
    with open_with_timeout(source, stop) as is_open:  # type: ignore[arg-type]
        assert not is_open
    source.let.set()
    assert source.closed.wait(5)


def test_opening_and_block_errors_are_raised() -> None:
    source = Scripted(SourceError("no such camera"))
    source.let.set()
    with pytest.raises(SourceError, match="no such camera"), open_with_timeout(source, threading.Event()):  # type: ignore[arg-type]
        pass
    source = Scripted()
    source.let.set()
    with pytest.raises(ZeroDivisionError), open_with_timeout(source, threading.Event()):  # type: ignore[arg-type]
        raise ZeroDivisionError
    assert source.closed.is_set()
