"""Being asked to stop, by a scheduler or a machine that shuts down."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["StopRequested", "never", "stop_requests"]


class StopRequested(Exception):
    """Work that takes a while was broken off, because the run must stop."""


@contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Inside the block SIGTERM does not end the process; the function that is given tells whether one has come.

    In a thread other than the main one, where signals cannot be caught, SIGTERM keeps its meaning.
    """
    if threading.current_thread() is not threading.main_thread():
        yield never
        return
    asked = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: asked.set())
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGTERM, before)


def never() -> bool:
    """No."""
    return False
