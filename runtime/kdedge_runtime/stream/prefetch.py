"""Prefetching in a background thread."""

import threading
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Generic, Self, TypeVar

__all__ = ["Prefetcher"]

T = TypeVar("T")
_STOP_CHECK_S = 0.1
_JOIN_TIMEOUT_S = 2.0


class Prefetcher(Generic[T]):
    """Iterates in a background thread, so that producer and consumer overlap.

    An item is produced only after the previous one was taken. At most one item waits, so camera frames are captured
    late instead of aging in a queue.
    """

    def __init__(self, items: Iterable[T], name: str, stop: threading.Event | None = None) -> None:
        """Create the prefetcher. The thread starts on entering the context.

        Args:
            items: iterable consumed once in the thread. Its errors are raised in the consumer, after the last item.
            name: thread name.
            stop: event that ends a wait for the next item.
        """
        self._items = items
        self._stop = stop or threading.Event()
        self._ready: list[T] = []
        self._changed = threading.Condition()
        self._closed = self._finished = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        # A thread blocked in a driver is abandoned; it is a daemon.
        self._thread.join(_JOIN_TIMEOUT_S)

    def __iter__(self) -> Iterator[T]:
        while True:
            with self._changed:
                while not self._ready and not self._finished and not self._stop.is_set():
                    self._changed.wait(_STOP_CHECK_S)
                if not self._ready:
                    break
                taken, self._ready = self._ready, []
                self._changed.notify_all()
            # Popped, so that no reference keeps a large frame alive while the next one is produced.
            yield taken.pop()
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        try:
            items = iter(self._items)
            while self._has_room():
                try:
                    item = next(items)
                except StopIteration:
                    break
                with self._changed:
                    self._ready.append(item)
                    self._changed.notify_all()
                del item
        except BaseException as error:  # re-raised in the consumer
            self._error = error
        finally:
            with self._changed:
                self._finished = True
                self._changed.notify_all()

    def _has_room(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or not self._ready)
            return not self._closed
