"""Server addresses and accepted host names."""

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
    """Host and port to listen on."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str, option: str = "--view") -> Self:
        """Parse `PORT`, `:PORT`, `HOST:PORT` or `[IPv6]:PORT`. Without a host, only this machine has access.

        Args:
            text: text to parse.
            option: option name for error messages.

        Raises:
            UsageError: the text is not an address.
        """
        host, _, port = text.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if not (port.isascii() and port.isdecimal() and int(port) <= 65535):
            raise UsageError(
                f"{option} {text!r} is not a valid address. Expected PORT for this machine only (8080), or HOST:PORT "
                "(0.0.0.0:8080 for network access with a token)."
            )
        return cls(host or "127.0.0.1", int(port))

    @property
    def is_loopback(self) -> bool:
        """True if only this machine can reach the address."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host.lower() == "localhost"

    def admits(self, host_header: str | None) -> bool:
        """Return True if a request with this Host header may be answered.

        A foreign web page can point its own host name at this machine and read what is served there (DNS rebinding).
        Such requests carry that name. Accepted are IP addresses, names of this machine and the name given by the user.
        Ports are not compared, so that port forwarding works.
        """
        try:
            target = urlsplit(f"//{host_header or ''}").hostname
        except ValueError:  # incomplete IPv6 address
            return False
        if target is None:
            return False
        if target in _LOOPBACK_NAMES | {self.host.lower()}:
            return True
        return not self.is_loopback and (_is_number(target) or target in _names_of_this_machine())

    def url(self, port: int, scheme: str = "http") -> str:
        """Return the URL to open in a browser, for the bound port."""
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
