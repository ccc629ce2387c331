"""Image stream: one thread sends each image, encoded once, to all clients without waiting for any of them."""

import logging
import socket
import ssl
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field

from kdedge_runtime.server.live_view.latest_frame import LatestFrame
from kdedge_runtime.server.request_handler import TIMEOUT_S

__all__ = ["BOUNDARY", "Broadcast"]

BOUNDARY = "kdedge-frame"
_log = logging.getLogger(__name__)
_WOULD_WAIT = (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError)


@dataclass(eq=False)
class _Viewer:
    connection: socket.socket
    unsent: memoryview = field(default_factory=lambda: memoryview(b""))
    took_at: float = field(default_factory=time.monotonic)
    """Time of the last successful send."""
    has_left: threading.Event = field(default_factory=threading.Event)

    def take(self, part: bytes) -> bool:
        """Send as much as possible without blocking, previous image first. Return False if the client is gone."""
        try:
            if self._send() and part:
                self.unsent = memoryview(part)
                self._send()
        except _WOULD_WAIT:
            return time.monotonic() - self.took_at < TIMEOUT_S
        except OSError:
            return False
        return True

    def _send(self) -> bool:
        while self.unsent:
            self.unsent = self.unsent[self.connection.send(self.unsent) :]
            self.took_at = time.monotonic()
        return True


class Broadcast:
    """Stream of the overlay images. Slow clients skip images."""

    def __init__(self, board: LatestFrame) -> None:
        """Create a broadcast without clients."""
        self._board = board
        self._viewers: set[_Viewer] = set()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._last = b""
        """Current image, for clients that join while the source is idle."""

    def serve(self, connection: socket.socket) -> None:
        """Send images as parts of `multipart/x-mixed-replace` until the client disconnects or the run ends."""
        connection.setblocking(False)
        with self._lock:
            viewer = _Viewer(connection, memoryview(f"--{BOUNDARY}\r\n".encode() + self._last))
            viewer.take(b"")
            self._viewers.add(viewer)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="kdedge-stream", daemon=True)
                self._thread.start()
        viewer.has_left.wait()
        with suppress(OSError):  # connection closed
            connection.settimeout(TIMEOUT_S)

    def _run(self) -> None:
        try:
            self._send_images()
        except Exception:  # otherwise clients would wait forever, e.g. if an image cannot be encoded
            _log.error("The image stream has ended; the run continues.", exc_info=True)
            while not self._ended(self._viewers.copy()):  # clients may join in the meantime
                pass

    def _send_images(self) -> None:
        serial = 0
        with self._board.watching():
            while True:
                image = self._board.next_image(serial, TIMEOUT_S)
                if image is None:
                    if self._ended(self._viewers.copy()):
                        return
                    continue
                serial, started = image.serial, time.thread_time()
                head = f"Content-Type: image/jpeg\r\nContent-Length: {len(image.jpeg)}\r\n\r\n".encode()
                # The next boundary is sent with the image, because browsers show a part only when it is complete.
                part = head + image.jpeg + f"\r\n--{BOUNDARY}\r\n".encode()
                with self._lock:
                    self._last, viewers = part, self._viewers.copy()
                left = {viewer for viewer in viewers if not viewer.take(part)}
                self._board.note_cost(time.thread_time() - started)
                if self._ended(left):
                    return

    def _ended(self, left: set[_Viewer]) -> bool:
        """Remove clients. Return True if none is left, which also ends this thread."""
        with self._lock:
            self._viewers -= left
            is_over = not self._viewers
            if is_over:
                self._thread, self._last = None, b""
        for viewer in left:
            viewer.has_left.set()
        return is_over
