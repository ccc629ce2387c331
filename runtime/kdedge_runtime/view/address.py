"""Where the view listens, and who may ask it."""

import ipaddress
import socket
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

from kdedge_runtime.errors import UsageError

__all__ = ["Address"]

_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True)
class Address:
    """A host and a port to listen on."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `PORT`, `:PORT`, `HOST:PORT` or `[IPv6]:PORT`; without a host it is this machine only.

        Raises:
            UsageError: the text is none of these.
        """
        host, _, port = text.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if not (port.isascii() and port.isdecimal() and int(port) <= 65535):
            raise UsageError(
                f"--view {text!r} is no address. Expected PORT for this machine only (8080), or HOST:PORT "
                "(0.0.0.0:8080 lets the whole network watch)."
            )
        return cls(host or "127.0.0.1", int(port))

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host.lower() == "localhost"

    def admits(self, host_header: str | None) -> bool:
        """Whether a request that names `host_header` as its target may be answered.

        A web page from elsewhere can point a name of its own at 127.0.0.1 and then read what is served there (DNS
        rebinding); such requests carry that name. Ports are not compared, so that a forwarded port works.
        """
        if not self.is_loopback:
            return True
        try:
            target = urlsplit(f"//{host_header or ''}")
        except ValueError:  # an unfinished IPv6 address
            return False
        return target.hostname in _LOOPBACK_NAMES | {self.host.lower()}

    def url(self, port: int) -> str:
        """The address to open in a browser, for the port that was really bound."""
        everywhere = self.host in {"0.0.0.0", "::"}
        host = socket.gethostname() if everywhere else self.host
        return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
