"""Prefetching: bounded, in order, and ended with its consumer."""

import threading
import time
from collections.abc import Iterator

import pytest

from kdedge_runtime.stream.prefetch import Prefetcher


def test_items_keep_order_and_error_follows_last_item() -> None:
    def items() -> Iterator[int]:
        yield from range(5)
        raise ValueError("broken")

    seen = []
    with pytest.raises(ValueError, match="broken"), Prefetcher(items(), "test") as ahead:
        for item in ahead:
            seen.append(item)
    assert seen == [0, 1, 2, 3, 4]


def test_item_starts_after_previous_one_is_taken() -> None:
    begun = []

    def items() -> Iterator[int]:
        for index in range(20):
            begun.append(index)
            yield index

    with Prefetcher(items(), "test") as ahead:
        for item in ahead:
            time.sleep(0.005)
            assert begun[-1] <= item + 1


def test_producer_and_consumer_overlap() -> None:
    together = threading.Barrier(2, timeout=5)

    def items() -> Iterator[int]:
        for index in range(3):
            if index:
                together.wait()  # times out unless the consumer processes the previous item
            yield index

    with Prefetcher(items(), "test") as ahead:
        for item in ahead:
            if item < 2:
                together.wait()


def test_early_exit_ends_thread() -> None:
    def items() -> Iterator[int]:
        while True:
            yield 0

    with Prefetcher(items(), "kdedge-test") as ahead:
        next(iter(ahead))
    assert not any(thread.name == "kdedge-test" for thread in threading.enumerate())


def test_wait_can_be_stopped() -> None:
    stop, released = threading.Event(), threading.Event()

    def items() -> Iterator[int]:
        yield 0
        released.wait(30)

    threading.Timer(0.1, stop.set).start()
    with Prefetcher(items(), "test", stop) as ahead:
        assert list(ahead) == [0]
        released.set()
