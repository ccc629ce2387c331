"""Latest-frame source, which keeps a slow model from lagging behind a camera."""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from types import TracebackType
from typing import Self

from kdedge_runtime.sources.source import Frame, Source

__all__ = ["LatestFrames"]

_SIGNAL_CHECK_S = 0.1
_JOIN_TIMEOUT_S = 2.0


class LatestFrames:
    """Source that reads ahead in a background thread and returns only the newest frame. The others count as dropped.

    Camera drivers may buffer many frames (OpenCV issue 10671), so the buffer must be emptied continuously. Sources that
    are not live are played in real time, like a camera.
    """

    def __init__(self, source: Source, stop: threading.Event | None = None) -> None:
        """Wrap a source.

        Args:
            source: source to wrap, opened and closed by this one.
            stop: event that ends the iteration, also during a wait.
        """
        self.name = source.name
        self.paths = source.paths
        self.live = True
        self.fps: float | None = None
        self.expected: int | None = None
        self._skipped = 0
        self._source = source
        self._stop = stop or threading.Event()
        self._closed = threading.Event()
        self._changed = threading.Condition()
        self._newest: Frame | None = None
        self._finished = False
        self._error: BaseException | None = None
        self._reader = threading.Thread(target=self._read, name="kdedge-reader", daemon=True)

    @property
    def dropped(self) -> int:
        """Number of frames that were not returned, and of those that the wrapped source dropped."""
        return self._skipped + self._source.dropped

    @property
    def unreadable(self) -> int:
        """Number of frames that the wrapped source could not decode."""
        return self._source.unreadable

    @property
    def reconnects(self) -> int:
        """Number of times that the wrapped source failed and recovered."""
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
        # The reader thread closes the source, because releasing a capture during a read crashes. A reader blocked in a
        # driver is abandoned; it is a daemon.
        self._closed.set()
        self._reader.join(_JOIN_TIMEOUT_S)
        if self._reader.is_alive() and self._source.live:  # a muted microphone returns nothing, but ends if closed
            self._source.__exit__(kind, error, trace)

    def __iter__(self) -> Iterator[Frame]:
        # Start here, so that frames before the first request do not count as dropped.
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
                    self._skipped += self._newest is not None
                    self._newest = frame
                    self._changed.notify()
                if self._closed.is_set():
                    break
        except BaseException as raised:  # re-raised in the consumer
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
