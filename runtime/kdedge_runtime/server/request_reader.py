"""Bounded request reader: limits on bytes and time before parsing."""

import io
import socket
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["HeadTooLong", "RequestReader"]


class HeadTooLong(Exception):
    """Request head that exceeds the size limit."""


class RequestReader(io.BufferedReader):
    """Reads from a socket with one deadline for the whole message instead of per `recv`."""

    def __init__(self, connection: socket.socket) -> None:
        """Create a reader for `connection`. Call `expect` before each message."""
        self._timed = _Timed(connection)
        self._line_bytes_left = 0
        super().__init__(self._timed)

    def expect(self, head_bytes: int, seconds: float) -> None:
        """Start the deadline of a message.

        Args:
            head_bytes: maximum total bytes returned by `readline` until the next call.
            seconds: time limit for the message; later reads raise `TimeoutError`.
        """
        self._line_bytes_left = head_bytes
        self._timed.deadline = time.monotonic() + seconds

    def readline(self, size: int | None = -1, /) -> bytes:
        """Read a line.

        Raises:
            HeadTooLong: the lines since `expect` exceed the limit.
            TimeoutError: the deadline has passed.
        """
        most = self._line_bytes_left + 1
        line = super().readline(most if size is None or size < 0 else min(size, most))
        self._line_bytes_left -= len(line)
        if self._line_bytes_left < 0:
            raise HeadTooLong
        return line

    def discard(self, most_bytes: int) -> None:
        """Read and discard pending input. Closing a socket with unread bytes would drop the response."""
        try:
            while most_bytes > 0 and (chunk := self.read1(8192)):
                most_bytes -= len(chunk)
        except OSError:  # the deadline passed or the client disconnected
            return


class _Timed(io.RawIOBase):
    def __init__(self, connection: socket.socket) -> None:
        self.deadline = 0.0
        self._connection = connection

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        timeout_s = self._connection.gettimeout()
        remaining_s = self.deadline - time.monotonic()
        if remaining_s <= 0:
            raise TimeoutError("the deadline of the message has passed")
        self._connection.settimeout(remaining_s)
        try:
            return self._connection.recv_into(buffer)
        finally:
            self._connection.settimeout(timeout_s)
