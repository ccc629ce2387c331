"""Request handler: routes, access, request bodies, and responses with the headers of every page."""

import json
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

from kdedge_runtime.errors import KdedgeError, SourceError, UsageError
from kdedge_runtime.modalities import BrowserSensor
from kdedge_runtime.server.access import Rejection
from kdedge_runtime.server.http_server import HttpServer
from kdedge_runtime.server.request_reader import HeadTooLong, RequestReader
from kdedge_runtime.server.static_files import StaticFile, shared_static_files

__all__ = ["TIMEOUT_S", "RequestHandler"]

TIMEOUT_S = 10.0
"""Time limit in seconds for a request head, for a body, and for sending a response."""
_MAX_HEAD_BYTES = 16 * 1024
_MAX_BODY_BYTES = 64 * 1024
_MAX_DISCARDED_BYTES = 256 * 1024
_COOKIE_S = 24 * 3600
_READING = ("GET", "HEAD")
"""Methods that read a path; their responses differ by the body only."""
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
        """Return GET handlers by path. They raise `UsageError` for an invalid query, and answer HEAD, too."""
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
        elif (answer := self.gets().get(path)) is not None:
            try:
                answer()
            except UsageError as error:
                self.send_failure(HTTPStatus.BAD_REQUEST, str(error))
        else:
            self._reject_method(path)

    def do_HEAD(self) -> None:
        """Handle a HEAD request: the response to GET without its body."""
        self.do_GET()

    def do_POST(self) -> None:
        """Handle a POST request."""
        path = self._admitted()
        if path is None:
            return
        change = self.posts().get(path)
        if change is None:
            self.close_connection = True  # the body has not been read
            self._reject_method(path)
        elif (refusal := self.server.policy.refuse_foreign_page(self.headers)) is not None:
            self._refuse(refusal)
        elif (body := self._body()) is not None:
            self.send_json(*_outcome(change, body))

    def do_OPTIONS(self) -> None:
        """Reject a request with a method that no path has."""
        self.close_connection = True  # a body has not been read
        path = self._admitted()
        if path is not None:
            self._reject_method(path)

    do_DELETE = do_PATCH = do_PUT = do_TRACE = do_OPTIONS

    def send_json(self, status: HTTPStatus, value: object, headers: Mapping[str, str] | None = None) -> None:
        """Send a value as JSON."""
        self.send_body(status, "application/json", json.dumps(value, allow_nan=False).encode(), headers)

    def send_failure(self, status: HTTPStatus, message: str, headers: Mapping[str, str] | None = None) -> None:
        """Send an error as JSON: `{"error": message}`."""
        self.send_json(status, {"error": message}, headers)

    def send_body(
        self, status: HTTPStatus, content_type: str, body: bytes, headers: Mapping[str, str] | None = None
    ) -> None:
        """Send a complete response; to HEAD only its headers."""
        self.begin(status, content_type, {"Content-Length": str(len(body)), **(headers or {})})
        if self.command != "HEAD":
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
            fields = parse_qs(target.query, keep_blank_values=True, max_num_fields=16)
            self.query = {key: values[0] for key, values in fields.items()}
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
        is_read = self.command in _READING
        if refusal.status is HTTPStatus.UNAUTHORIZED and is_read and target.path in shared_static_files():
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

    def _reject_method(self, path: str) -> None:
        """Reject a request for a path that does not exist, or that has other methods."""
        readable, changing = {**self.assets(), **self.gets()}, self.posts()
        methods = [*(_READING if path in readable else ()), *(["POST"] if path in changing else [])]
        if methods:
            allowed = {"Allow": ", ".join(methods)}
            message = f"{path} does not support {self.command}. Expected {' or '.join(methods)}."
            self.send_failure(HTTPStatus.METHOD_NOT_ALLOWED, message, allowed)
        else:
            paths = " ".join([*readable, *changing])
            self.send_failure(HTTPStatus.NOT_FOUND, f"Not found. Available: {paths}")

    def _send_asset(self, asset: StaticFile, status: HTTPStatus = HTTPStatus.OK) -> None:
        body, gzipped = asset.for_client(self.headers.get("Accept-Encoding", ""))
        self.send_body(status, asset.content_type, body, {"Content-Encoding": "gzip"} if gzipped else None)
