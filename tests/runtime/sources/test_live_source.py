"""Cameras and streams that fail and recover, without fake frames."""

import io
import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice

import numpy as np
import pytest
from PIL import Image

from kdedge_runtime.errors import SourceError
from kdedge_runtime.sources import open_source
from kdedge_runtime.sources.camera import OpenCVConnection
from kdedge_runtime.sources.latest_frames import LatestFrames
from kdedge_runtime.sources.live_source import Backoff, LiveSource

QUICK = Backoff(first_s=0.01, longest_s=0.05, timeout_s=5)


class Plug:
    """Scripted camera: each opening returns some frames and then fails; zero fails to open."""

    def __init__(self, *openings: int) -> None:
        self.openings = list(openings)
        self.open = 0
        self.most_open = 0
        self.attempts = 0
        self.shade = 0

    def connect(self) -> "PluggedCamera":
        self.attempts += 1
        frames = self.openings.pop(0) if self.openings else 0
        if not frames:
            raise SourceError("Camera test did not open.")
        return PluggedCamera(self, frames)


class PluggedCamera:
    fps = 30.0

    def __init__(self, plug: Plug, frames: int) -> None:
        self._plug, self._frames = plug, frames
        plug.open += 1
        plug.most_open = max(plug.most_open, plug.open)

    def read(self) -> tuple[np.ndarray, float] | None:
        if not self._frames:
            return None
        self._frames -= 1
        self._plug.shade += 1
        return np.full((4, 4, 3), self._plug.shade, np.uint8), time.monotonic()

    def close(self) -> None:
        self._plug.open -= 1


def _read(source: LiveSource, count: int) -> list[int]:
    return [int(frame.sample[0, 0, 0]) for frame in islice(source, count)]


def test_disconnected_camera_is_reopened_without_fake_frames(caplog: pytest.LogCaptureFixture) -> None:
    plug = Plug(3, 0, 0, 2, 1, 0, 4)
    with LiveSource("Camera test", "camera", plug.connect, backoff=QUICK) as source, caplog.at_level(logging.WARNING):
        shades = _read(source, 9)
    assert shades == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert source.reconnects == 3
    assert (plug.open, plug.most_open) == (0, 1), "one connection at a time, and all are closed"
    messages = [record.message for record in caplog.records]
    assert len(messages) == 6, "one message per loss and one per recovery"
    assert "returns no more frames" in messages[0]
    assert "reconnected after" in messages[1] and "attempt 3" in messages[1]


def test_frame_indices_continue_after_reconnect() -> None:
    with LiveSource("Camera test", "camera", Plug(2, 2).connect, backoff=QUICK) as source:
        frames = list(islice(source, 4))
    assert [(frame.index, frame.name) for frame in frames] == [(i, f"camera-{i:06d}") for i in range(4)]


def test_failed_first_opening_is_an_error() -> None:
    plug = Plug(0, 5)
    with pytest.raises(SourceError, match="did not open"):
        LiveSource("Camera test", "camera", plug.connect, backoff=QUICK).__enter__()
    assert plug.attempts == 1


def test_camera_without_frames_is_an_error() -> None:
    class Silent(PluggedCamera):
        def read(self) -> None:
            return None

    plug = Plug()
    with (
        LiveSource("Camera test", "camera", lambda: Silent(plug, 0), backoff=QUICK) as source,
        pytest.raises(SourceError, match="opened but returns no frames"),
    ):
        next(iter(source))


def test_reconnect_attempts_time_out() -> None:
    plug = Plug(1)
    impatient = Backoff(first_s=0.01, longest_s=0.02, timeout_s=0.2)
    with (
        LiveSource("Camera test", "camera", plug.connect, backoff=impatient) as source,
        pytest.raises(SourceError, match=r"Camera test has returned no frame for .* attempts"),
    ):
        _read(source, 2)
    assert 5 < plug.attempts < 40


def test_backoff_doubles_up_to_a_limit() -> None:
    assert [Backoff().delay_s(attempt) for attempt in (0, 1, 2, 5, 6, 7, 10_000)] == [0.5, 1, 2, 16, 30, 30, 30]


@pytest.mark.parametrize("latest", [False, True])
def test_wait_for_lost_camera_can_be_stopped(latest: bool) -> None:
    stop = threading.Event()
    live = LiveSource("Camera test", "camera", Plug(1).connect, stop, Backoff(first_s=30))
    threading.Timer(0.2, stop.set).start()
    started = time.monotonic()
    with LatestFrames(live, stop) if latest else live as source:
        assert len(list(source)) == 1
    assert time.monotonic() - started < 5


def test_hanging_camera_is_released_by_reading_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdedge_runtime.sources.live_source._JOIN_TIMEOUT_S", 0.1)
    plug, released = Plug(), threading.Event()

    class Hanging(PluggedCamera):
        def read(self) -> tuple[np.ndarray, float] | None:
            return super().read() if self._frames else released.wait(10) and None

    source = LiveSource("Camera test", "camera", lambda: Hanging(plug, 1), backoff=QUICK)
    with source:
        reader = threading.Thread(target=lambda: list(source))
        reader.start()
        while plug.shade < 1:
            time.sleep(0.005)
        time.sleep(0.05)
    assert plug.open == 1, "not closed during a read"
    released.set()
    reader.join(5)
    assert plug.open == 0


@pytest.mark.parametrize("given", [(False, None), (True, None), (True, np.empty((0, 0, 3), np.uint8))])
def test_failed_opencv_read_is_not_a_frame(given: tuple[bool, np.ndarray | None]) -> None:
    cv2 = pytest.importorskip("cv2", reason="cameras need OpenCV")

    class Capture:
        def get(self, _: int) -> float:
            return 0.0

        def read(self) -> tuple[bool, np.ndarray | None]:
            return given

    connection = OpenCVConnection(cv2, Capture())
    assert connection.read() is None
    assert connection.fps is None


class _Mjpeg(BaseHTTPRequestHandler):
    """Network camera that sends one JPEG per shade of `server.shades` and disconnects."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        for shade in self.server.shades:
            buffer = io.BytesIO()
            Image.new("RGB", (64, 48), (shade, 0, 0)).save(buffer, "JPEG", quality=95)
            part = buffer.getvalue()
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(part)}\r\n\r\n"
            self.wfile.write(head.encode() + part + b"\r\n")
            time.sleep(0.02)
        self.wfile.write(b"--frame--\r\n")

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def _camera_at(port: int, shades: list[int]) -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", port), _Mjpeg)
    server.shades = shades
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


def test_restarted_network_camera_is_reconnected(caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("cv2", reason="streams need OpenCV")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    reds = []
    with _camera_at(port, [200] * 12):
        source = open_source(f"http://127.0.0.1:{port}/stream", "all")
        source._backoff = Backoff(first_s=0.1, longest_s=0.2, timeout_s=30)
        source.__enter__()
        frames = iter(source)
        while not source.reconnects and len(reds) < 8:
            reds.append(float(next(frames).sample[..., 0].mean()))
    # After the disconnect, buffered frames arrive, then the source waits for the server.
    done = threading.Event()
    threading.Timer(0.5, _serve_until, (port, done)).start()
    try:
        with caplog.at_level(logging.WARNING):
            while not source.reconnects:
                reds.append(float(next(frames).sample[..., 0].mean()))
            reds.append(float(next(frames).sample[..., 0].mean()))
    finally:
        done.set()
        source.__exit__(None, None, None)
    assert source.reconnects == 1
    assert min(reds) > 80, "no black frames"
    assert {round(red / 100) for red in reds} == {1, 2}, "frames from before and after"
    assert "returns no more frames" in caplog.text
    assert "reconnected" in caplog.text


def _serve_until(port: int, done: threading.Event) -> None:
    with _camera_at(port, [100] * 200):
        done.wait(20)


def test_frames_have_capture_time() -> None:
    class Sensor:
        fps = 30.0

        def read(self) -> tuple[np.ndarray, float]:
            return np.zeros((4, 4, 3), np.uint8), 123.5

        def close(self) -> None:
            pass

    with LiveSource("test", "camera", Sensor) as source:
        frames = list(islice(source, 3))
    assert [frame.captured_at for frame in frames] == [123.5] * 3
