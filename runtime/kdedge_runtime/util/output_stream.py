"""Text output line by line, whose reader may exit at any time."""

import os
import sys
import threading
from typing import TextIO

from kdedge_runtime.errors import KdedgeError

__all__ = ["OutputStream"]


class OutputStream:
    """Text stream that is flushed after each write."""

    def __init__(self, stop: threading.Event, stream: TextIO | None = None, name: str = "Standard output") -> None:
        """Create an output.

        Args:
            stop: event to set when the reader of a pipe has exited (`… | head`); further text is dropped.
            stream: text stream; None for standard output.
            name: name of the stream in errors.
        """
        self._stop, self._stream, self._name = stop, stream or sys.stdout, name

    def write(self, text: str) -> None:
        """Write and flush text.

        Raises:
            KdedgeError: the text cannot be written, such as to a full disk.
        """
        try:
            self._stream.write(text)
            self._stream.flush()
        except BrokenPipeError:
            self._stop.set()
            self._silence()
        except OSError as error:
            self._silence()
            raise KdedgeError(f"{self._name} cannot be written: {error.strerror}.") from error

    def _silence(self) -> None:
        """Redirect buffered output to the null device, so that closing the stream does not fail again."""
        os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
