"""Text output line by line, whose reader may exit at any time."""

import codecs
import os
import sys
import threading
from typing import TextIO

from kdedge_runtime.errors import KdedgeError, UsageError

__all__ = ["OutputStream"]


class OutputStream:
    """Text stream that is flushed after each write."""

    def __init__(self, stop: threading.Event, stream: TextIO | None = None, name: str = "Standard output") -> None:
        """Create an output.

        Args:
            stop: event to set when the reader of a pipe has exited (`… | head`); further text is dropped.
            stream: text stream; None for standard output.
            name: name of the stream in errors.

        Raises:
            UsageError: standard output is closed.
        """
        # None for a process that was started without standard output (`>&-`).
        stream = sys.stdout if stream is None else stream
        if stream is None:
            raise UsageError("Standard output is closed. Expected a terminal, a file or a pipe: remove `>&-`.")
        self._stop, self._stream, self._name = stop, stream, name
        self._encoding = stream.encoding or "utf-8"

    @property
    def is_unicode(self) -> bool:
        """True if the encoding of the stream has all characters."""
        return codecs.lookup(self._encoding).name.startswith("utf-")

    def write(self, text: str) -> None:
        r"""Write and flush text. Characters that the encoding does not have are escaped, e.g. as `\xe9`.

        Raises:
            KdedgeError: the text cannot be written, such as to a full disk.
        """
        try:
            self._stream.write(text.encode(self._encoding, "backslashreplace").decode(self._encoding))
            self._stream.flush()
        except BrokenPipeError:
            self._stop.set()
            self._silence()
        except OSError as error:
            self._silence()
            raise KdedgeError(f"{self._name} cannot be written: {error.strerror}.") from error

    def _silence(self) -> None:
        """Redirect buffered output to the null device, so that closing the stream does not fail again."""
        null = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(null, self._stream.fileno())
        finally:
            os.close(null)
