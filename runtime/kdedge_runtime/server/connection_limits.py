"""Connection slots: limited in total, and per address for clients that are not authorized yet."""

import ipaddress
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass

__all__ = ["ConnectionLimits"]

MAX_PLACES = 96
_LOOPBACK_RESERVE = 4
"""Slots reserved for this machine, e.g. for a watchdog that requests /health."""
_WAITING_PER_ADDRESS = 8
"""Maximum unauthorized connections per address; browsers open six."""


@dataclass
class _Place:
    origin: str
    is_loopback: bool
    is_admitted: bool = False


class ConnectionLimits:
    """Connection slots of the server.

    If its address or all addresses together exceed the limit, a new client replaces the longest-waiting unauthorized
    one. Slow clients can therefore only displace each other.
    """

    def __init__(self) -> None:
        self._taken: dict[socket.socket, _Place] = {}  # oldest first
        self._lock = threading.Lock()

    def take(self, connection: socket.socket, host: str) -> bool:
        """Assign a slot to a client. Return False if all slots are taken by authorized clients.

        Args:
            connection: client socket.
            host: client IP address.
        """
        origin, is_loopback = _origin(host)
        with self._lock:
            own = self._waiting(origin)
            if len(own) >= _WAITING_PER_ADDRESS:
                self._end(own[0])
            elif len(self._taken) >= MAX_PLACES - (0 if is_loopback else _LOOPBACK_RESERVE):
                waiting = self._most_waiting(besides_loopback=not is_loopback)
                if not waiting:
                    return False
                self._end(waiting[0])
            self._taken[connection] = _Place(origin, is_loopback)
            return True

    def admit(self, connection: socket.socket) -> None:
        """Mark a client as authorized, which keeps its slot until it disconnects."""
        with self._lock:
            if connection in self._taken:
                self._taken[connection].is_admitted = True

    def release(self, connection: socket.socket) -> None:
        """Free the slot of a disconnected client."""
        with self._lock:
            self._taken.pop(connection, None)

    def end_all(self) -> None:
        """Close every connection."""
        with self._lock:
            for connection in list(self._taken):
                self._end(connection)

    def _waiting(self, origin: str) -> list[socket.socket]:
        return [
            connection for connection, place in self._taken.items() if place.origin == origin and not place.is_admitted
        ]

    def _most_waiting(self, *, besides_loopback: bool) -> list[socket.socket]:
        """Return the waiting clients of the address with most of them."""
        origins = {place.origin for place in self._taken.values() if not (besides_loopback and place.is_loopback)}
        return max(map(self._waiting, origins), key=len, default=[])

    def _end(self, connection: socket.socket) -> None:
        del self._taken[connection]
        with suppress(OSError):  # already closed
            # SSL sockets' own method would remove the encryption under the reading thread.
            socket.socket.shutdown(connection, socket.SHUT_RDWR)


def _origin(host: str) -> tuple[str, bool]:
    """Return the owner of an address and True if it is loopback. An IPv6 client owns a /64 network."""
    address = ipaddress.ip_address(host.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    address = mapped or address
    if address.version == 6:
        return str(ipaddress.ip_network((address, 64), strict=False)), address.is_loopback
    return str(address), address.is_loopback
