"""Threaded HTTP server based on the standard library, with limits on all client-controlled resources."""

import errno
import logging
import socket
import ssl
import sys
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any

from kdedge_runtime.errors import UsageError
from kdedge_runtime.server.access import AccessPolicy
from kdedge_runtime.server.connection_limits import ConnectionLimits
from kdedge_runtime.server.failed_logins import FailedLogins

__all__ = ["HttpServer"]

_log = logging.getLogger(__name__)
_BUSY_REASON = b'{"error": "All connections of this server are taken. Close some of them."}'
_BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(_BUSY_REASON), _BUSY_REASON)
)


class HttpServer(ThreadingHTTPServer):
    """HTTP server. It listens from its creation, and answers from `start` to `close`."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 32

    def __init__(
        self,
        policy: AccessPolicy,
        handler: type[BaseHTTPRequestHandler],
        *,
        option: str = "--view",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Create the server and listen.

        Args:
            policy: address and access policy.
            handler: request handler class, a `RequestHandler`.
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
