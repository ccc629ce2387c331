"""Only the newest frame: what keeps a slow model from falling behind a camera."""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from types import TracebackType
from typing import Self

from kdedge_runtime.sources.source import Frame, Source

__all__ = ["LatestFrames"]

_SIGNAL_CHECK_S = 0.1
_GOODBYE_S = 2.0


class LatestFrames:
    """A source that reads ahead in a thread and hands out the newest frame only; the rest is counted as dropped.

    Buffers of camera drivers cannot be relied on to stay short (OpenCV issue 10671), so somebody has to keep
    emptying them. A source that is not live is played at its own rate, as if it were a camera.
    """

    def __init__(self, source: Source, stop: threading.Event | None = None) -> None:
        """Wrap `source`.

        Args:
            source: opened and closed by this one.
            stop: ends the iteration when set, also while it waits for a frame.
        """
        self.name = source.name
        self.live = True
        self.fps: float | None = None
        self.expected: int | None = None
        self.dropped = 0
        self._source = source
        self._stop = stop or threading.Event()
        self._closed = threading.Event()
        self._changed = threading.Condition()
        self._newest: Frame | None = None
        self._finished = False
        self._error: BaseException | None = None
        self._reader = threading.Thread(target=self._read, name="kdedge-reader", daemon=True)

    @property
    def unreadable(self) -> int:
        """Frames that the wrapped source could not decode."""
        return self._source.unreadable

    @property
    def reconnects(self) -> int:
        """Times that the wrapped source gave out and came back."""
        return self._source.reconnects

    def __enter__(self) -> Self:
        self._source.__enter__()
        self.fps, self.expected = self._source.fps, self._source.expected
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        if self._reader.ident is None:
            self._source.__exit__(kind, error, trace)
            return
        # The reader closes the source itself: releasing a capture while another thread reads from it crashes. A
        # reader that hangs in a driver is left behind; it is a daemon.
        self._closed.set()
        self._reader.join(_GOODBYE_S)

    def __iter__(self) -> Iterator[Frame]:
        # Not earlier: what passes before anybody asks is not dropped.
        self._reader.start()
        while True:
            with self._changed:
                while self._newest is None and not self._finished and not self._stop.is_set():
                    self._changed.wait(_SIGNAL_CHECK_S)
                frame, self._newest = self._newest, None
                error = self._error
            if frame is not None:
                yield frame
            elif error is not None:
                raise error
            else:
                return

    def _read(self) -> None:
        error: BaseException | None = None
        try:
            for frame in self._paced():
                with self._changed:
                    self.dropped += self._newest is not None
                    self._newest = frame
                    self._changed.notify()
                if self._closed.is_set():
                    break
        except BaseException as raised:  # everything belongs to the consumer, who raises it again
            error = raised
        finally:
            self._source.__exit__(None, None, None)
            with self._changed:
                self._error, self._finished = error, True
                self._changed.notify()

    def _paced(self) -> Iterator[Frame]:
        if self._source.live or self._source.fps is None:
            yield from self._source
            return
        started = time.monotonic()
        for frame in self._source:
            due = started + frame.index / self._source.fps
            if self._closed.wait(max(0.0, due - time.monotonic())):
                return
            yield replace(frame, captured_at=time.monotonic())
