"""Graceful stop on SIGTERM or Ctrl-C."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

__all__ = ["StopSignal", "StopRequested", "never_stop", "stop_requests"]


class StopRequested(Exception):
    """Raised when a longer operation is aborted because the run must stop."""


@dataclass
class StopSignal:
    """Callable that returns True once a stop was requested."""

    signal: int | None = None
    """First signal received, or None."""

    def __call__(self) -> bool:
        """Return True if a stop was requested."""
        return self.signal is not None


@contextmanager
def stop_requests() -> Iterator[StopSignal]:
    """Turn SIGTERM and the first Ctrl-C into stop requests inside the block; the second Ctrl-C ends the process.

    Outside the main thread signals cannot be caught and keep their default behavior.
    """
    stop = StopSignal()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def request_stop(number: int, _: FrameType | None) -> None:
        stop.signal = stop.signal or number
        signal.signal(signal.SIGINT, before[signal.SIGINT])

    before = {number: signal.signal(number, request_stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def never_stop() -> bool:
    """Return False: never stop."""
    return False
