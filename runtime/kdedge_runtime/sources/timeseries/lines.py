"""Lines of text from standard input, a file that grows, or a serial port."""

import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from kdedge_runtime.errors import MissingDependency, SourceError

__all__ = ["GrowingFile", "Lines", "SerialLines", "StandardInput"]

_POLL_S = 0.05
_READ_S = 0.2
"""Longest wait for bytes of a serial port in seconds, after which a stop is noticed."""
_LONGEST_LINE = 1 << 20


class Lines(Protocol):
    """Open connection to a sender of lines."""

    def __iter__(self) -> Iterator[str]:
        """Iterate over the lines until the sender ends or the connection is closed.

        Raises:
            SourceError: the connection is lost.
        """

    def close(self) -> None:
        """Release the device or connection; may be called from another thread."""


class StandardInput:
    """Lines of standard input, until its end."""

    def __iter__(self) -> Iterator[str]:
        yield from sys.stdin

    def close(self) -> None:
        """Leave standard input open: a blocked read ends with the process."""


class GrowingFile:
    """Lines that are appended to a file, after those it has already; a replaced or shortened file is read again."""

    def __init__(self, path: Path) -> None:
        """Open the file.

        Raises:
            SourceError: the file does not exist or cannot be read.
        """
        self._path = path
        self._closed = threading.Event()
        self._file = self._open()

    def __iter__(self) -> Iterator[str]:
        rest = ""
        try:
            while not self._closed.is_set():
                part = self._file.readline(_LONGEST_LINE)
                rest += part
                if rest.endswith("\n"):
                    yield rest
                    rest = ""
                elif not part and self._is_replaced():
                    self._file.close()
                    self._file, rest = self._open(), ""
                elif not part:
                    self._closed.wait(_POLL_S)
        finally:
            self._file.close()

    def close(self) -> None:
        """End the iteration."""
        self._closed.set()

    def _open(self) -> Any:
        try:
            return self._path.open(encoding="utf-8-sig", errors="replace", newline="")
        except OSError as error:
            raise SourceError(f"{self._path} cannot be read ({error.strerror}). Expected a CSV file.") from error

    def _is_replaced(self) -> bool:
        try:
            there = self._path.stat()
        except OSError:  # for a moment, while a logger rotates it
            return False
        here = os.fstat(self._file.fileno())
        return (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino) or there.st_size < self._file.tell()


class SerialLines:
    """Lines of a serial port."""

    def __init__(self, port: str, baud: int) -> None:
        """Open the port.

        Raises:
            SourceError: the port does not exist, is in use, or the user may not open it.
            MissingDependency: pyserial is not installed.
        """
        try:
            from serial import Serial, SerialException
        except ImportError as error:
            raise MissingDependency(
                "--source serial: needs the package pyserial, which is not installed. Install it with `pip install "
                "pyserial`, or the runtime with its extra `serial`."
            ) from error
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

    def __iter__(self) -> Iterator[str]:
        rest = b""
        try:
            while not self._closed.is_set():
                rest += self._port.readline()
                if rest.endswith(b"\n"):
                    yield rest.decode("utf-8", "replace")
                    rest = b""
                elif len(rest) > _LONGEST_LINE:
                    raise SourceError(f"The serial port {self._name} sends no line breaks. Check the baud rate.")
        except (self._failure, OSError) as error:
            raise SourceError(f"The serial port {self._name} failed ({error}). Check its cable.") from error
        finally:
            self._port.close()

    def close(self) -> None:
        """End the iteration, which closes the port."""
        self._closed.set()
