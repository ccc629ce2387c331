"""Open a source in a background thread, because a driver may block and only the main thread receives signals."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from kdedge_runtime.sources.source import Source

__all__ = ["open_with_timeout"]

_SIGNAL_CHECK_S = 0.1


@contextmanager
def open_with_timeout(source: Source, stop: threading.Event) -> Iterator[bool]:
    """Enter a source for the duration of the block.

    Yields True once the source is open, or False if `stop` is set first. In that case the opening thread is abandoned,
    and closes the source if it opens later.

    Args:
        source: source that is not entered yet.
        stop: event set, for example, by a signal handler.

    Raises:
        Exception: any error of the source.
    """
    is_over = threading.Event()
    errors: list[BaseException] = []
    lock = threading.Lock()
    is_left = False

    def enter() -> None:
        try:
            source.__enter__()
        except BaseException as error:  # re-raised in the caller
            errors.append(error)
            is_over.set()
            return
        with lock:
            if not is_left:
                is_over.set()
                return
        source.__exit__(None, None, None)

    threading.Thread(target=enter, name="kdedge-open", daemon=True).start()
    while not is_over.wait(_SIGNAL_CHECK_S):
        with lock:
            if stop.is_set() and not is_over.is_set():
                is_left = True
                break
    if is_left:
        yield False
        return
    if errors:
        raise errors[0]
    with _closing(source):
        yield True


@contextmanager
def _closing(source: Source) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        source.__exit__(type(error), error, error.__traceback__)
        raise
    source.__exit__(None, None, None)
