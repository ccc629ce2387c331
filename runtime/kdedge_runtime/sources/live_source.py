"""Cameras, microphones and streams, reopened automatically after failures."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from kdedge_runtime.errors import SourceError
from kdedge_runtime.modalities import Sample
from kdedge_runtime.sources.source import Frame

__all__ = ["Backoff", "Connection", "LiveSource"]

_log = logging.getLogger(__name__)
_JOIN_TIMEOUT_S = 2.0


class Connection(Protocol):
    """Open camera, microphone or stream."""

    @property
    def fps(self) -> float | None:
        """Nominal frame rate, or None."""

    def read(self) -> tuple[Sample, float] | None:
        """Wait for the next raw sample, and its capture time on the `time.monotonic` clock.

        None means that the connection failed; it is then closed.
        """

    def close(self) -> None:
        """Release the device or connection."""


class Backoff:
    """Exponential backoff between attempts to reopen a source."""

    def __init__(self, first_s: float = 0.5, longest_s: float = 30.0, timeout_s: float = 600.0) -> None:
        self.first_s = first_s
        self.longest_s = longest_s
        self.timeout_s = timeout_s
        """Seconds without a frame after which the source fails permanently."""

    def delay_s(self, attempt: int) -> float:
        """Return the delay in seconds before an attempt, counted from 0."""
        return min(self.first_s * 2.0 ** min(attempt, 30), self.longest_s)


class LiveSource:
    """Camera or stream without an end.

    If it fails after its first frame, it is reopened repeatedly. The first opening is not retried, because a wrong name
    is the most likely cause.
    """

    live = True
    paths: tuple[Path, ...] = ()
    expected: int | None = None
    dropped = 0
    unreadable = 0

    def __init__(
        self,
        name: str,
        kind: str,
        connect: Callable[[], Connection],
        stop: threading.Event | None = None,
        backoff: Backoff | None = None,
        *,
        window_s: float | None = None,
        closed: threading.Event | None = None,
    ) -> None:
        """Create a source. Entering opens it.

        Args:
            name: name of the source in messages.
            kind: prefix of frame names.
            connect: function that opens it; raises `SourceError` on failure.
            stop: event that ends the waits between attempts.
            backoff: delays between attempts; None for the default.
            window_s: length of the windows that end at their capture time, in seconds; None for samples without
                windows.
            closed: event that is set on exit, for connections whose `read` can wait without an end.
        """
        self.name = name
        self.fps: float | None = None
        self.reconnects = 0
        self._kind = kind
        self._connect = connect
        self._stop = stop or threading.Event()
        self._backoff = backoff or Backoff()
        self._window_s = window_s
        self._first_at: float | None = None
        self._connection: Connection | None = None
        self._in_use = threading.Lock()
        self._closed = closed or threading.Event()

    def __enter__(self) -> Self:
        self._connection = self._connect()
        self.fps = self._connection.fps
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._closed.set()
        # Releasing a camera during a read crashes some drivers, so the reading thread releases it.
        if self._in_use.acquire(timeout=_JOIN_TIMEOUT_S):
            self._disconnect()
            self._in_use.release()

    def __iter__(self) -> Iterator[Frame]:
        try:
            yield from self._frames()
        finally:
            if self._closed.is_set():
                with self._in_use:
                    self._disconnect()

    def _frames(self) -> Iterator[Frame]:
        index = 0
        while not self._closed.is_set():
            with self._in_use:
                read = self._connection.read() if self._connection is not None else None
            if read is None:
                if not index and not self._is_ending():
                    raise SourceError(f"{self.name} opened but returns no frames. Check that no other program uses it.")
                read = self._recover()
                if read is None:
                    return
            sample, captured_at = read
            yield Frame(index, sample, captured_at, f"{self._kind}-{index:06d}", span_s=self._span_s(captured_at))
            index += 1

    def _is_ending(self) -> bool:
        return self._closed.is_set() or self._stop.is_set()

    def _span_s(self, captured_at: float) -> tuple[float, float] | None:
        """Return start and end of a window in seconds from the start of the first one; outages count."""
        if self._window_s is None:
            return None
        if self._first_at is None:
            self._first_at = captured_at
        start = captured_at - self._first_at
        return start, start + self._window_s

    def _recover(self) -> tuple[Sample, float] | None:
        """Reopen the source until it returns a frame; None if the run is stopping.

        Raises:
            SourceError: no frame for longer than `Backoff.timeout_s`.
        """
        if self._is_ending():
            return None
        lost_at = time.monotonic()
        _log.warning("%s returns no more frames: reopening it", self.name)
        attempt = 0
        while not self._is_ending():
            with self._in_use:
                self._disconnect()
            if time.monotonic() - lost_at > self._backoff.timeout_s:
                raise SourceError(
                    f"{self.name} has returned no frame for {self._backoff.timeout_s / 60:.0f} minutes and "
                    f"{attempt} attempts to reopen it. Check its cable, power and network, then start the run again."
                )
            if self._stop.wait(self._backoff.delay_s(attempt)):
                break
            attempt += 1
            read = self._attempt()
            if read is not None:
                self.reconnects += 1
                silence_s = time.monotonic() - lost_at
                _log.warning("%s reconnected after %.1f s (attempt %d)", self.name, silence_s, attempt)
                return read
        return None

    def _attempt(self) -> tuple[Sample, float] | None:
        with self._in_use:
            if self._closed.is_set():
                return None
            try:
                self._connection = self._connect()
                return self._connection.read()
            except SourceError:
                return None

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
