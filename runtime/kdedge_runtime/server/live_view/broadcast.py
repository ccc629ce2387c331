"""One thread sends each picture to all viewers of the stream: it is encoded once, and nobody waits for anybody."""

import logging
import socket
import ssl
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field

from kdedge_runtime.server.http_server import PATIENCE_S
from kdedge_runtime.server.live_view.latest_frame import Board

__all__ = ["BOUNDARY", "Broadcast"]

BOUNDARY = "kdedge-frame"
_log = logging.getLogger(__name__)
_WOULD_WAIT = (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError)


@dataclass(eq=False)
class _Viewer:
    connection: socket.socket
    unsent: memoryview = field(default_factory=lambda: memoryview(b""))
    took_at: float = field(default_factory=time.monotonic)
    """When it last took something."""
    has_left: threading.Event = field(default_factory=threading.Event)

    def take(self, part: bytes) -> bool:
        """Send as much as can be sent at once, of the last picture first; False if the viewer has left."""
        try:
            if self._send() and part:
                self.unsent = memoryview(part)
                self._send()
        except _WOULD_WAIT:
            return time.monotonic() - self.took_at < PATIENCE_S
        except OSError:
            return False
        return True

    def _send(self) -> bool:
        while self.unsent:
            self.unsent = self.unsent[self.connection.send(self.unsent) :]
            self.took_at = time.monotonic()
        return True


class Broadcast:
    """The stream of a board's pictures. A viewer that is slower than the pictures misses some."""

    def __init__(self, board: Board) -> None:
        """Send nothing yet."""
        self._board = board
        self._viewers: set[_Viewer] = set()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._last = b""
        """The picture that is shown now, for viewers that join while the source stands still."""

    def serve(self, connection: socket.socket) -> None:
        """Send pictures, as parts of `multipart/x-mixed-replace`, until the viewer leaves or the run ends."""
        connection.setblocking(False)
        with self._lock:
            viewer = _Viewer(connection, memoryview(f"--{BOUNDARY}\r\n".encode() + self._last))
            viewer.take(b"")
            self._viewers.add(viewer)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="kdedge-stream", daemon=True)
                self._thread.start()
        viewer.has_left.wait()
        with suppress(OSError):  # it is closed
            connection.settimeout(PATIENCE_S)

    def _run(self) -> None:
        try:
            self._send_pictures()
        except Exception:  # a picture that cannot be encoded, say: viewers would wait for ever
            _log.error("The stream of pictures has ended; the run goes on.", exc_info=True)
            while not self._ended(self._viewers.copy()):  # somebody may join meanwhile
                pass

    def _send_pictures(self) -> None:
        serial = 0
        with self._board.watching():
            while True:
                picture = self._board.next_picture(serial, PATIENCE_S)
                if picture is None:
                    if self._ended(self._viewers.copy()):
                        return
                    continue
                serial, started = picture.serial, time.thread_time()
                head = f"Content-Type: image/jpeg\r\nContent-Length: {len(picture.jpeg)}\r\n\r\n".encode()
                # The next boundary comes with the picture: browsers show a part only once it has ended.
                part = head + picture.jpeg + f"\r\n--{BOUNDARY}\r\n".encode()
                with self._lock:
                    self._last, viewers = part, self._viewers.copy()
                left = {viewer for viewer in viewers if not viewer.take(part)}
                self._board.note_cost(time.thread_time() - started)
                if self._ended(left):
                    return

    def _ended(self, left: set[_Viewer]) -> bool:
        """Let viewers go; whether none is left, and with them this thread."""
        with self._lock:
            self._viewers -= left
            is_over = not self._viewers
            if is_over:
                self._thread, self._last = None, b""
        for viewer in left:
            viewer.has_left.set()
        return is_over
