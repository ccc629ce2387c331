"""The web server of the view: the standard library's, a thread a client."""

import errno
import json
import logging
import socket
import threading
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from kdedge_runtime.answer import Answer
from kdedge_runtime.errors import UsageError
from kdedge_runtime.progress import Progress
from kdedge_runtime.view.address import Address
from kdedge_runtime.view.board import Board

__all__ = ["LiveView"]

_log = logging.getLogger(__name__)
_BOUNDARY = "kdedge-frame"
_MAX_STREAMS = 8
_PATIENCE_S = 10.0
_STREAM_BUFFER_BYTES = 128 * 1024
_SECURITY_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; img-src 'self' data:; connect-src 'self'; "
    "style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class LiveView:
    """A sink that serves the run to browsers for as long as it is entered.

    | path            | what                                                                     |
    |-----------------|--------------------------------------------------------------------------|
    | `/`             | the page                                                                 |
    | `/stream.mjpg`  | the overlays, `multipart/x-mixed-replace`                                |
    | `/snapshot.jpg` | the next overlay                                                         |
    | `/metrics.json` | answer, rates, counters and stage timings                                |
    | `/health`       | 200 while answers come, 503 when none came for ten seconds               |
    """

    def __init__(self, address: Address, about: Mapping[str, str]) -> None:
        self._address = address
        self._board = Board(about)
        self._server: _Server | None = None

    @property
    def wants_overlay(self) -> bool:
        """Whether anybody watches."""
        return self._board.watchers > 0

    @property
    def url(self) -> str:
        """Where the page is; only while entered."""
        if self._server is None:
            raise RuntimeError("the view has no URL before it is entered")
        return self._address.url(self._server.server_address[1])

    def __enter__(self) -> Self:
        try:
            self._server = _Server(self._address, self._board)
        except OSError as error:
            remedy = "Expected an address of this machine and a port above 1023: `--view 8080`."
            if error.errno == errno.EADDRINUSE:
                remedy = f"Stop what uses that port, or take another: `--view {self._address.port % 65535 + 1}`."
            place = f"{self._address.host}:{self._address.port}"
            raise UsageError(f"--view cannot listen on {place}: {error.strerror or error}. {remedy}") from error
        threading.Thread(target=self._server.serve_forever, args=(0.1,), name="kdedge-view", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._board.close()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def write(self, answer: Answer, progress: Progress) -> None:
        """Show one answer to whoever watches; returns at once."""
        self._board.publish(answer, progress)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: Address, board: Board) -> None:
        self.address_family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        self.asked_for = address
        self.board = board
        self.page = files("kdedge_runtime.view").joinpath("page.html").read_bytes()
        self.streams = threading.BoundedSemaphore(_MAX_STREAMS)
        super().__init__((address.host, address.port), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        _log.debug("a client of the view went away", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version = "kdedge"
    sys_version = ""
    timeout = _PATIENCE_S

    def do_GET(self) -> None:
        if not self.server.asked_for.admits(self.headers.get("Host")):
            self._send_text(HTTPStatus.FORBIDDEN, "This view answers to localhost only.\n")
            return
        routes = {
            "/": self._page,
            "/stream.mjpg": self._stream,
            "/snapshot.jpg": self._snapshot,
            "/metrics.json": self._metrics,
            "/health": self._health,
        }
        route = routes.get(urlsplit(self.path).path)
        if route is None:
            self._send_text(HTTPStatus.NOT_FOUND, f"There are: {' '.join(routes)}\n")
        else:
            route()

    def log_message(self, format: str, *args: Any) -> None:
        _log.debug(format, *args)

    def _page(self) -> None:
        self._send(HTTPStatus.OK, "text/html; charset=utf-8", self.server.page)

    def _metrics(self) -> None:
        self._send(HTTPStatus.OK, "application/json", json.dumps(self.server.board.metrics()).encode())

    def _health(self) -> None:
        healthy, silence_s = self.server.board.health()
        status = HTTPStatus.OK if healthy else HTTPStatus.SERVICE_UNAVAILABLE
        body = {"status": "ok" if healthy else "stalled", "last_answer_s": round(silence_s, 3)}
        self._send(status, "application/json", json.dumps(body).encode())

    def _snapshot(self) -> None:
        board = self.server.board
        with board.watching():
            picture = board.next_picture(after=0, timeout_s=_PATIENCE_S)
        if picture is None:
            self._send_text(HTTPStatus.SERVICE_UNAVAILABLE, "No picture came in time.\n")
        else:
            self._send(HTTPStatus.OK, "image/jpeg", picture[1])

    def _stream(self) -> None:
        if not self.server.streams.acquire(blocking=False):
            self._send_text(HTTPStatus.SERVICE_UNAVAILABLE, f"{_MAX_STREAMS} browsers watch already.\n")
            return
        try:
            # A short send buffer: what waits in it is seen late.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _STREAM_BUFFER_BYTES)
            self._begin(HTTPStatus.OK, f"multipart/x-mixed-replace; boundary={_BOUNDARY}")
            self._send_pictures()
        finally:
            self.server.streams.release()

    def _send_pictures(self) -> None:
        board = self.server.board
        serial = 0
        self.wfile.write(f"--{_BOUNDARY}\r\n".encode())
        with board.watching():
            while (picture := board.next_picture(serial, _PATIENCE_S)) is not None:
                serial, data = picture
                head = f"Content-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
                # The next boundary comes with the picture: browsers show a part only once it has ended.
                self.wfile.write(head.encode() + data + f"\r\n--{_BOUNDARY}\r\n".encode())

    def _send_text(self, status: HTTPStatus, text: str) -> None:
        self._send(status, "text/plain; charset=utf-8", text.encode())

    def _send(self, status: HTTPStatus, content_type: str, body: bytes) -> None:
        self._begin(status, content_type, len(body))
        self.wfile.write(body)

    def _begin(self, status: HTTPStatus, content_type: str, length: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        if length is not None:
            self.send_header("Content-Length", str(length))
        for name, value in _SECURITY_HEADERS.items():
            self.send_header(name, value)
        self.end_headers()
