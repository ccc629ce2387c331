"""The bytes that a client sends, bounded in number and in time before anything parses them."""

import io
import socket
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["HeadTooLong", "Incoming"]


class HeadTooLong(Exception):
    """A request head has more bytes than allowed."""


class Incoming(io.BufferedReader):
    """Reads from a socket until a deadline for the whole message, not for each `recv`."""

    def __init__(self, connection: socket.socket) -> None:
        """Read from `connection`; call `expect` before each message."""
        self._timed = _Timed(connection)
        self._line_bytes_left = 0
        super().__init__(self._timed)

    def expect(self, head_bytes: int, seconds: float) -> None:
        """Start the deadline of a message.

        Args:
            head_bytes: the most bytes that `readline` returns until the next call, in all.
            seconds: until the last byte of the message; later reads raise `TimeoutError`.
        """
        self._line_bytes_left = head_bytes
        self._timed.deadline = time.monotonic() + seconds

    def readline(self, size: int | None = -1, /) -> bytes:
        """Read a line.

        Raises:
            HeadTooLong: the lines since `expect` are longer than allowed.
            TimeoutError: the deadline has passed.
        """
        most = self._line_bytes_left + 1
        line = super().readline(most if size is None or size < 0 else min(size, most))
        self._line_bytes_left -= len(line)
        if self._line_bytes_left < 0:
            raise HeadTooLong
        return line

    def discard(self, most_bytes: int) -> None:
        """Read and drop what still comes: closing a socket with unread bytes would drop the answer instead."""
        try:
            while most_bytes > 0 and (chunk := self.read1(8192)):
                most_bytes -= len(chunk)
        except OSError:  # the deadline, or the client left
            return


class _Timed(io.RawIOBase):
    def __init__(self, connection: socket.socket) -> None:
        self.deadline = 0.0
        self._connection = connection

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        patience_s = self._connection.gettimeout()
        remaining_s = self.deadline - time.monotonic()
        if remaining_s <= 0:
            raise TimeoutError("the deadline of the message has passed")
        self._connection.settimeout(remaining_s)
        try:
            return self._connection.recv_into(buffer)
        finally:
            self._connection.settimeout(patience_s)
