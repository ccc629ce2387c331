"""Threaded HTTP server based on the standard library, with limits on all client-controlled resources."""

import errno
import json
import logging
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

from kdedge_runtime.errors import KdedgeError, SourceError, UsageError
from kdedge_runtime.modalities import BrowserSensor
from kdedge_runtime.server.access import AccessPolicy, Rejection
from kdedge_runtime.server.connection_limits import ConnectionLimits
from kdedge_runtime.server.failed_logins import FailedLogins
from kdedge_runtime.server.request_reader import HeadTooLong, RequestReader
from kdedge_runtime.server.static_files import StaticFile, shared_static_files

__all__ = ["TIMEOUT_S", "RequestHandler", "HttpServer"]

_log = logging.getLogger(__name__)
TIMEOUT_S = 10.0
"""Time limit in seconds for a request head, for a body, and for sending a response."""
_MAX_HEAD_BYTES = 16 * 1024
_MAX_BODY_BYTES = 64 * 1024
_MAX_DISCARDED_BYTES = 256 * 1024
_COOKIE_S = 24 * 3600
_BUSY = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_HEADERS = {
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_DEVICES = "camera", "microphone", "geolocation"
_CSP = (
    "default-src 'none'; script-src 'self'{scripts}; style-src 'self'; img-src 'self' blob: data:; media-src blob:; "
    "connect-src 'self'; worker-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


class HttpServer(ThreadingHTTPServer):
    """HTTP server. It listens from its creation, and answers from `start` to `close`."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 32

    def __init__(
        self,
        policy: AccessPolicy,
        handler: "type[RequestHandler]",
        *,
        option: str = "--view",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Create the server and listen.

        Args:
            policy: address and access policy.
            handler: request handler class.
            option: option name for error messages.
            tls: certificate for HTTPS; None for HTTP.

        Raises:
            UsageError: the address cannot be used.
        """
        self.policy = policy
        self.address_family = socket.AF_INET6 if ":" in policy.address.host else socket.AF_INET
        self.places = ConnectionLimits()
        self.failed_logins = FailedLogins()
        self._scheme = "http" if tls is None else "https"
        self._thread: threading.Thread | None = None
        address = policy.address
        try:
            super().__init__((address.host, address.port), handler)
        except OSError as error:
            remedy = f"Expected an address of this machine and a port above 1023: `{option} 8080`."
            if error.errno == errno.EADDRINUSE:
                remedy = (
                    f"Stop the program that uses this port, or use another port: `{option} {address.port % 65535 + 1}`."
                )
            raise UsageError(
                f"{option} cannot listen on {address.host}:{address.port}: {error.strerror or error}. {remedy}"
            ) from error
        if tls is not None:
            # The handshake runs in the client's thread, so that a slow client blocks nobody else.
            self.socket = tls.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    @property
    def cookie(self) -> str:
        """Cookie name. Browsers send cookies to all ports of a host, so each port has its own name."""
        return f"kdedge-{self.server_address[1]}"

    @property
    def is_encrypted(self) -> bool:
        """True if the server uses HTTPS."""
        return self._scheme == "https"

    @property
    def url(self) -> str:
        """URL of the page, including the token if it is required and may be printed."""
        url = self.policy.address.url(self.server_address[1], self._scheme)
        return f"{url}?token={self.policy.token}" if self.policy.token and self.policy.is_printed else url

    def start(self, name: str) -> None:
        """Start answering requests in a thread with this name."""
        self._thread = threading.Thread(target=self.serve_forever, args=(0.1,), name=name, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop the server and close all connections."""
        if self._thread is not None:
            self.shutdown()
        self.server_close()
        self.places.end_all()

    def server_bind(self) -> None:
        """Bind without a reverse DNS lookup, which can take seconds."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.policy.address.host, self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start a thread for the client if a slot is free."""
        if not self.places.take(request, client_address[0]):
            with suppress(OSError):  # already disconnected
                if not self.is_encrypted:
                    request.setblocking(False)
                    request.send(_BUSY)
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:  # no more threads available
            self.places.release(request)
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve one client until it disconnects."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.places.release(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log disconnected clients at debug level, and unexpected errors."""
        if isinstance(sys.exception(), OSError):
            _log.debug("client disconnected", exc_info=True)
        else:
            _log.error("A request failed; the run continues.", exc_info=True)


def _outcome(change: Callable[[dict[str, Any]], object], body: dict[str, Any]) -> tuple[HTTPStatus, object]:
    try:
        return HTTPStatus.OK, change(body)
    except UsageError as error:
        return HTTPStatus.BAD_REQUEST, {"error": str(error)}
    except SourceError as error:  # e.g. a run that has ended
        return HTTPStatus.SERVICE_UNAVAILABLE, {"error": str(error)}
    except (KdedgeError, OSError) as error:  # e.g. a model file that was removed
        return HTTPStatus.INTERNAL_SERVER_ERROR, {"error": str(error)}


class RequestHandler(BaseHTTPRequestHandler):
    """Request handler for one connection. Subclasses define the routes."""

    server: HttpServer
    protocol_version = "HTTP/1.1"
    server_version = "kdedge"
    sys_version = ""
    timeout = TIMEOUT_S
    open_paths: ClassVar[frozenset[str]] = frozenset()
    """Paths that need no token."""
    scripts: ClassVar[str] = ""
    """Additional script sources for the Content-Security-Policy."""
    query: dict[str, str]
    rfile: RequestReader

    def setup(self) -> None:
        """Install the bounded reader."""
        super().setup()
        self.rfile.close()
        self.rfile = RequestReader(self.connection)

    def handle_one_request(self) -> None:
        """Handle one request, with limits on the size and time of its head."""
        self.rfile.expect(_MAX_HEAD_BYTES, TIMEOUT_S)
        self.raw_requestline = b""
        try:
            super().handle_one_request()
        except HeadTooLong:
            self.requestline, self.request_version, self.command = "", "", ""
            self.send_error(
                HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE if self.raw_requestline else HTTPStatus.REQUEST_URI_TOO_LONG
            )
            self.rfile.discard(_MAX_DISCARDED_BYTES)

    def sensor(self) -> BrowserSensor | None:
        """Return the sensor that the pages may open; none by default."""
        return None

    def assets(self) -> Mapping[str, StaticFile]:
        """Return static files by path."""
        return {}

    def gets(self) -> Mapping[str, Callable[[], None]]:
        """Return GET handlers by path."""
        return {}

    def posts(self) -> Mapping[str, Callable[[dict[str, Any]], object]]:
        """Return POST handlers by path. They take the request's JSON object and return a JSON-compatible response."""
        return {}

    def do_GET(self) -> None:
        """Handle a GET request."""
        if "Content-Length" in self.headers or "Transfer-Encoding" in self.headers:
            # The body of a GET request is not read, so the connection cannot be reused.
            self.close_connection = True
        path = self._admitted()
        if path is None:
            return
        if path == "/" and "token" in self.query:
            self._exchange_token()
        elif (asset := self.assets().get(path)) is not None:
            self._send_asset(asset)
        elif (prediction := self.gets().get(path)) is not None:
            prediction()
        else:
            self._send_missing([*self.assets(), *self.gets()])

    def do_POST(self) -> None:
        """Handle a POST request."""
        path = self._admitted()
        if path is None:
            return
        change = self.posts().get(path)
        if change is None:
            self.close_connection = True
            self._send_missing(self.posts())
        elif (refusal := self.server.policy.refuse_foreign_page(self.headers)) is not None:
            self._refuse(refusal)
        elif (body := self._body()) is not None:
            self.send_json(*_outcome(change, body))

    def send_json(self, status: HTTPStatus, value: object) -> None:
        """Send a value as JSON."""
        self.send_body(status, "application/json", json.dumps(value, allow_nan=False).encode())

    def send_failure(self, status: HTTPStatus, message: str) -> None:
        """Send an error as JSON: `{"error": message}`."""
        self.send_json(status, {"error": message})

    def send_body(
        self, status: HTTPStatus, content_type: str, body: bytes, headers: Mapping[str, str] | None = None
    ) -> None:
        """Send a complete response."""
        self.begin(status, content_type, {"Content-Length": str(len(body)), **(headers or {})})
        self.wfile.write(body)

    def begin(self, status: HTTPStatus, content_type: str, headers: Mapping[str, str]) -> None:
        """Send the response headers. Without a `Content-Length` the body ends with the connection."""
        if "Content-Length" not in headers:
            self.close_connection = True
        self.send_response(status)
        sensor = self.sensor()
        always = {
            "Content-Type": content_type,
            "Cache-Control": "no-store",
            "Content-Security-Policy": _CSP.format(scripts=self.scripts),
            "Permissions-Policy": ", ".join(f"{name}={'(self)' if name == sensor else '()'}" for name in _DEVICES),
        }
        for name, value in (always | _HEADERS | dict(headers)).items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Send an error found by the standard library, with our headers."""
        self.close_connection = True
        status = HTTPStatus(code)
        self.send_failure(status, message or f"{status.phrase}.")

    def log_message(self, format: str, *args: Any) -> None:
        """Do nothing: request URLs may contain the token."""

    def _admitted(self) -> str | None:
        """Return the requested path, or None after rejecting the request."""
        try:
            target = urlsplit(self.path)
            self.query = {key: values[0] for key, values in parse_qs(target.query, max_num_fields=16).items()}
        except ValueError:
            self._refuse(Rejection(HTTPStatus.BAD_REQUEST, "Invalid URL."))
            return None
        policy = self.server.policy
        refusal = policy.refuse_host(self.headers)
        if refusal is None and target.path not in self.open_paths:
            refusal = policy.reject_unauthenticated(self.headers, self.server.cookie, self.query.get("token"))
        if refusal is None:
            if target.path not in self.open_paths:
                self.server.places.admit(self.connection)
            return target.path
        if refusal.is_guess:
            self.server.failed_logins.slow(self.client_address[0])
        if refusal.status is HTTPStatus.UNAUTHORIZED and self.command == "GET" and target.path in shared_static_files():
            status = HTTPStatus.UNAUTHORIZED if target.path == "/" else HTTPStatus.OK
            self._send_asset(shared_static_files()[target.path], status)
        else:
            self._refuse(refusal)
        return None

    def _exchange_token(self) -> None:
        """Move the token from the URL, where it would be visible and stored, to a cookie."""
        headers = {"Location": "/", "Content-Length": "0"}
        if self.server.policy.token is not None:
            # Lax, because a Strict cookie would not be sent after following a link in an email.
            secure = "; Secure" if self.server.is_encrypted else ""
            headers["Set-Cookie"] = (
                f"{self.server.cookie}={self.server.policy.token}; Path=/; HttpOnly; SameSite=Lax{secure}; "
                f"Max-Age={_COOKIE_S}"
            )
        self.begin(HTTPStatus.SEE_OTHER, "text/plain; charset=utf-8", headers)

    def _body(self) -> dict[str, Any] | None:
        """Return the JSON object of the request body, or None after rejecting the request."""
        length = self.headers.get("Content-Length", "")
        if "Transfer-Encoding" in self.headers or not (length.isascii() and length.isdecimal()):
            self._refuse(Rejection(HTTPStatus.LENGTH_REQUIRED, "The Content-Length header is required."))
        elif len(length) > len(str(_MAX_BODY_BYTES)) or int(length) > _MAX_BODY_BYTES:
            self._refuse(
                Rejection(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The body may have at most {_MAX_BODY_BYTES:,} bytes.")
            )
        else:
            self.rfile.expect(0, TIMEOUT_S)
            try:
                value = json.loads(self.rfile.read(int(length)))
            except (ValueError, RecursionError):
                value = None
            if isinstance(value, dict):
                return value
            self._refuse(Rejection(HTTPStatus.BAD_REQUEST, "Expected a JSON object."))
        return None

    def _refuse(self, refusal: Rejection) -> None:
        # The body has not been read, so the connection cannot be reused.
        self.close_connection = True
        self.send_failure(refusal.status, refusal.text)

    def _send_missing(self, paths: Mapping[str, object] | list[str]) -> None:
        self.send_failure(HTTPStatus.NOT_FOUND, f"Not found. Available: {' '.join(paths)}")

    def _send_asset(self, asset: StaticFile, status: HTTPStatus = HTTPStatus.OK) -> None:
        body, gzipped = asset.for_client(self.headers.get("Accept-Encoding", ""))
        self.send_body(status, asset.content_type, body, {"Content-Encoding": "gzip"} if gzipped else None)
