"""Cameras and streams: opened again when they give out, and never a frame made up meanwhile."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Protocol, Self

from kdedge_runtime.errors import SourceError
from kdedge_runtime.sources.source import Frame
from kdedge_runtime.util.arrays import Pixels

__all__ = ["Backoff", "Connection", "LiveSource"]

_log = logging.getLogger(__name__)
_GOODBYE_S = 2.0


class Connection(Protocol):
    """An open camera or stream."""

    @property
    def fps(self) -> float | None:
        """The rate that it claims."""

    def read(self) -> tuple[Pixels, float] | None:
        """Wait for the next frame: uint8 RGB `[H, W, 3]` and its capture on the clock of `time.monotonic`.

        None when none came: the connection is dead then, and is closed.
        """

    def close(self) -> None:
        """Release it."""


class Backoff:
    """How long to wait before the next attempt: twice as long each time, up to a bound."""

    def __init__(self, first_s: float = 0.5, longest_s: float = 30.0, patience_s: float = 600.0) -> None:
        self.first_s = first_s
        self.longest_s = longest_s
        self.patience_s = patience_s
        """After this time without a frame the source is given up."""

    def delay_s(self, attempt: int) -> float:
        """Seconds before attempt number `attempt`, from 0."""
        return min(self.first_s * 2.0 ** min(attempt, 30), self.longest_s)


class LiveSource:
    """A camera or stream: whatever it shows, from now on.

    It has no end. When it gives out after its first frame, it is opened again and again, and time passes without
    frames. The first opening is not repeated: what fails then is mostly a wrong name.
    """

    live = True
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
    ) -> None:
        """Prepare; entering opens it.

        Args:
            name: of the source in messages.
            kind: what the names of frames begin with.
            connect: opens it; raises `SourceError` where that fails.
            stop: ends the waits between attempts when set.
            backoff: None for the default one.
        """
        self.name = name
        self.fps: float | None = None
        self.reconnects = 0
        self._kind = kind
        self._connect = connect
        self._stop = stop or threading.Event()
        self._backoff = backoff or Backoff()
        self._connection: Connection | None = None
        self._in_use = threading.Lock()
        self._closed = False

    def __enter__(self) -> Self:
        self._connection = self._connect()
        self.fps = self._connection.fps
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._closed = True
        # Releasing a camera while another thread reads from it crashes some drivers; that thread does it then.
        if self._in_use.acquire(timeout=_GOODBYE_S):
            self._disconnect()
            self._in_use.release()

    def __iter__(self) -> Iterator[Frame]:
        try:
            yield from self._frames()
        finally:
            if self._closed:
                with self._in_use:
                    self._disconnect()

    def _frames(self) -> Iterator[Frame]:
        index = 0
        while not self._closed:
            with self._in_use:
                read = self._connection.read() if self._connection is not None else None
            if read is None:
                if not index:
                    raise SourceError(f"{self.name} opened but gives no frames. See that no other program uses it.")
                read = self._recover()
                if read is None:
                    return
            rgb, captured_at = read
            yield Frame(index, rgb, captured_at, f"{self._kind}-{index:06d}")
            index += 1

    def _recover(self) -> tuple[Pixels, float] | None:
        """Open it until it gives a frame again; None when the run is to stop.

        Raises:
            SourceError: patience has run out.
        """
        if self._closed or self._stop.is_set():
            return None
        lost_at = time.monotonic()
        _log.warning("%s gives no more frames: trying to open it again", self.name)
        attempt = 0
        while not self._closed and not self._stop.is_set():
            with self._in_use:
                self._disconnect()
            if time.monotonic() - lost_at > self._backoff.patience_s:
                raise SourceError(
                    f"{self.name} has given no frame for {self._backoff.patience_s / 60:.0f} minutes, in {attempt} "
                    "attempts to open it again. Check its cable, power and network, then start the run again."
                )
            if self._stop.wait(self._backoff.delay_s(attempt)):
                break
            attempt += 1
            read = self._attempt()
            if read is not None:
                self.reconnects += 1
                silence_s = time.monotonic() - lost_at
                _log.warning("%s is back after %.1f s (attempt %d)", self.name, silence_s, attempt)
                return read
        return None

    def _attempt(self) -> tuple[Pixels, float] | None:
        with self._in_use:
            if self._closed:
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
