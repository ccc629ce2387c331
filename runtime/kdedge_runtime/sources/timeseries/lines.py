"""Lines of text from standard input, a file that grows, or a serial port."""

import logging
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from kdedge_runtime.errors import SourceError
from kdedge_runtime.sources.timeseries.columns import is_header, split_line
from kdedge_runtime.util.optional_package import needs_package

__all__ = ["GrowingFile", "Lines", "SerialLines", "StandardInput"]

_log = logging.getLogger(__name__)
_POLL_S = 0.05
_READ_S = 0.2
"""Longest wait for bytes of a serial port in seconds, after which a stop is noticed."""
_MAX_LINE_BYTES = 1 << 20


class Lines(Protocol):
    """Open connection to a sender of lines."""

    def __iter__(self) -> Iterator[str | int]:
        """Iterate over the lines until the sender ends or the connection is closed.

        A number stands for an interruption: so many lines were dropped, or 0 if it is unknown how many.

        Raises:
            SourceError: the connection is lost.
        """

    def close(self) -> None:
        """Release the device or connection; may be called from another thread."""


class StandardInput:
    """Lines of standard input, until its end. A last line without a line break may be incomplete, and is skipped."""

    def __iter__(self) -> Iterator[str | int]:
        for line in sys.stdin.buffer:
            if line.endswith(b"\n"):
                yield line.decode("utf-8", "replace")
            else:
                _log.warning("skipped: the last line of standard input has no line break, so it may be incomplete")

    def close(self) -> None:
        """Leave standard input open: a blocked read ends with the process."""


class GrowingFile:
    """Lines that are appended to a file, after its header. A file that replaces it is read from its beginning."""

    def __init__(self, path: Path) -> None:
        """Open the file.

        Raises:
            SourceError: the file does not exist or cannot be read.
        """
        self._path = path
        self._closed = threading.Event()
        self._file = self._open()
        self._header = self._skip_rows()

    def __iter__(self) -> Iterator[str | int]:
        rest = b""
        try:
            if self._header is not None:
                yield self._header
            while not self._closed.is_set():
                part = self._file.readline(_MAX_LINE_BYTES)
                rest += part
                if rest.endswith(b"\n"):
                    yield _text(rest)
                    rest = b""
                elif not part and self._is_replaced():
                    # Rows may have been appended between the last read and the replacement.
                    yield from (_text(line) for line in self._file if line.endswith(b"\n"))
                    self._file.close()
                    self._file, rest = self._open(), b""
                    yield 0
                elif not part:
                    self._closed.wait(_POLL_S)
        finally:
            self._file.close()

    def close(self) -> None:
        """End the iteration."""
        self._closed.set()

    def _open(self) -> Any:
        try:
            return self._path.open("rb")
        except OSError as error:
            raise SourceError(f"{self._path} cannot be read ({error.strerror}). Expected a CSV file.") from error

    def _skip_rows(self) -> str | None:
        """Go behind the last line break, and return the header if there is one."""
        first = self._file.readline(_MAX_LINE_BYTES)
        end = os.fstat(self._file.fileno()).st_size
        start = max(0, end - _MAX_LINE_BYTES)
        self._file.seek(start)
        self._file.seek(start + self._file.read(end - start).rfind(b"\n") + 1)
        is_complete = first.endswith(b"\n") and is_header(split_line(_text(first)))
        return _text(first) if is_complete else None

    def _is_replaced(self) -> bool:
        try:
            there = self._path.stat()
        except OSError:  # for a moment, while a logger rotates it
            return False
        here = os.fstat(self._file.fileno())
        return (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino) or there.st_size < self._file.tell()


def _text(line: bytes) -> str:
    return line.decode("utf-8-sig", "replace")


class SerialLines:
    """Lines of a serial port. The first one may be the end of a line, so it is skipped unless it has titles."""

    def __init__(self, port: str, baud: int) -> None:
        """Open the port.

        Raises:
            SourceError: the port does not exist, is in use, or the user may not open it.
            MissingDependency: pyserial is not installed.
        """
        with needs_package("--source serial:", "pyserial", "`pip install pyserial`, or the extra `serial`"):
            from serial import Serial, SerialException
        self._failure = SerialException
        self._name = port
        self._closed = threading.Event()
        try:
            self._port = Serial(port, baud, timeout=_READ_S)
        except (SerialException, ValueError, OSError) as error:
            raise SourceError(
                f"The serial port {port} cannot be opened ({error}). Check its name and cable, and that the user is in "
                "the group dialout."
            ) from error

    def __iter__(self) -> Iterator[str | int]:
        rest, is_first = b"", True
        try:
            while not self._closed.is_set():
                rest += self._port.readline()
                if rest.endswith(b"\n"):
                    text = rest.decode("utf-8", "replace")
                    if not is_first or is_header(split_line(text)):
                        yield text
                    rest, is_first = b"", False
                elif len(rest) > _MAX_LINE_BYTES:
                    raise SourceError(f"The serial port {self._name} sends no line breaks. Check the baud rate.")
        except (self._failure, OSError) as error:
            raise SourceError(f"The serial port {self._name} failed ({error}). Check its cable.") from error
        finally:
            self._port.close()

    def close(self) -> None:
        """End the iteration, which closes the port."""
        self._closed.set()
