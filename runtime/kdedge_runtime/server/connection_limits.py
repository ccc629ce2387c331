"""Places for clients: bounded in all, and for each address until a request of it was let in."""

import ipaddress
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass

__all__ = ["Places"]

MOST_PLACES = 96
_LOOPBACK_RESERVE = 4
"""Places that only this machine can take: its watchdog asks for /health."""
_WAITING_PER_ADDRESS = 8
"""A browser opens six connections."""


@dataclass
class _Place:
    origin: str
    is_loopback: bool
    is_admitted: bool = False


class Places:
    """Counts the clients that are served at once.

    A newcomer takes the place of the client that has waited longest to be let in, where its own address or all
    addresses together have too many. So slow senders end each other, and nobody else.
    """

    def __init__(self) -> None:
        self._taken: dict[socket.socket, _Place] = {}  # the oldest first
        self._lock = threading.Lock()

    def take(self, connection: socket.socket, host: str) -> bool:
        """Give a client a place; False if all are taken by clients that were let in.

        Args:
            connection: the client's.
            host: its IP address.
        """
        origin, is_loopback = _origin(host)
        with self._lock:
            own = self._waiting(origin)
            if len(own) >= _WAITING_PER_ADDRESS:
                self._end(own[0])
            elif len(self._taken) >= MOST_PLACES - (0 if is_loopback else _LOOPBACK_RESERVE):
                waiting = self._most_waiting(besides_loopback=not is_loopback)
                if not waiting:
                    return False
                self._end(waiting[0])
            self._taken[connection] = _Place(origin, is_loopback)
            return True

    def admit(self, connection: socket.socket) -> None:
        """Note that a request of this client was let in: its place is its own until it leaves."""
        with self._lock:
            if connection in self._taken:
                self._taken[connection].is_admitted = True

    def release(self, connection: socket.socket) -> None:
        """Free the place of a client that has left."""
        with self._lock:
            self._taken.pop(connection, None)

    def end_all(self) -> None:
        """End every connection."""
        with self._lock:
            for connection in list(self._taken):
                self._end(connection)

    def _waiting(self, origin: str) -> list[socket.socket]:
        return [
            connection for connection, place in self._taken.items() if place.origin == origin and not place.is_admitted
        ]

    def _most_waiting(self, *, besides_loopback: bool) -> list[socket.socket]:
        """The waiting clients of the address that has most of them."""
        origins = {place.origin for place in self._taken.values() if not (besides_loopback and place.is_loopback)}
        return max(map(self._waiting, origins), key=len, default=[])

    def _end(self, connection: socket.socket) -> None:
        del self._taken[connection]
        with suppress(OSError):  # it has ended by itself
            # Not the method of SSL sockets, which takes the encryption away under the thread that reads.
            socket.socket.shutdown(connection, socket.SHUT_RDWR)


def _origin(host: str) -> tuple[str, bool]:
    """Whoever holds an address, and whether it is this machine; an IPv6 client has a /64 of addresses to itself."""
    address = ipaddress.ip_address(host.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    address = mapped or address
    if address.version == 6:
        return str(ipaddress.ip_network((address, 64), strict=False)), address.is_loopback
    return str(address), address.is_loopback
