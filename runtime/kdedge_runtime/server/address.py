"""Where a server listens, and by which names it may be called."""

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
    def parse(cls, text: str, option: str = "--view") -> Self:
        """Read `PORT`, `:PORT`, `HOST:PORT` or `[IPv6]:PORT`; without a host it is this machine only.

        Args:
            text: what the user typed.
            option: what it was typed after, for the message.

        Raises:
            UsageError: the text is none of these.
        """
        host, _, port = text.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if not (port.isascii() and port.isdecimal() and int(port) <= 65535):
            raise UsageError(
                f"{option} {text!r} is no address. Expected PORT for this machine only (8080), or HOST:PORT "
                "(0.0.0.0:8080 lets the network in, with a token)."
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

        A web page from elsewhere can point a name of its own at this machine and then read what is served there (DNS
        rebinding); such requests carry that name. Numbers cannot be pointed elsewhere; of names, those that this
        machine calls itself and the one that the user gave are good. Ports are not compared, so that a forwarded port
        works.
        """
        try:
            target = urlsplit(f"//{host_header or ''}").hostname
        except ValueError:  # an unfinished IPv6 address
            return False
        if target is None:
            return False
        if target in _LOOPBACK_NAMES | {self.host.lower()}:
            return True
        return not self.is_loopback and (_is_number(target) or target in _names_of_this_machine())

    def url(self, port: int, scheme: str = "http") -> str:
        """The address to open in a browser, for the port that was really bound."""
        everywhere = self.host in {"0.0.0.0", "::"}
        host = socket.gethostname() if everywhere else self.host
        return f"{scheme}://[{host}]:{port}/" if ":" in host else f"{scheme}://{host}:{port}/"


def _is_number(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _names_of_this_machine() -> set[str]:
    name = socket.gethostname().lower()
    short = name.partition(".")[0]
    return {name, short, f"{short}.local"}
