"""Being asked to stop, by a scheduler, by a machine that shuts down, or by Ctrl-C."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

__all__ = ["Stop", "StopRequested", "never", "stop_requests"]


class StopRequested(Exception):
    """Work that takes a while was broken off, because the run must stop."""


@dataclass
class Stop:
    """Tells, when it is called, whether somebody has asked to stop."""

    signal: int | None = None
    """That asked first; None while nobody has."""

    def __call__(self) -> bool:
        """Whether."""
        return self.signal is not None


@contextmanager
def stop_requests() -> Iterator[Stop]:
    """Inside the block SIGTERM and the first Ctrl-C do not end the process, but ask for a stop; the second Ctrl-C does.

    In a thread other than the main one, where signals cannot be caught, they keep their meaning.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def ask(number: int, _: FrameType | None) -> None:
        stop.signal = stop.signal or number
        signal.signal(signal.SIGINT, before[signal.SIGINT])

    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def never() -> bool:
    """No."""
    return False
