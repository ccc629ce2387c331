"""Work beside its consumer: bounded, in order, and over when the consumer is."""

import threading
import time
from collections.abc import Iterator

import pytest

from kdedge_runtime.stream.prefetch import Ahead


def test_items_keep_their_order_and_an_error_comes_after_the_last() -> None:
    def items() -> Iterator[int]:
        yield from range(5)
        raise ValueError("broken")

    seen = []
    with pytest.raises(ValueError, match="broken"), Ahead(items(), "test") as ahead:
        for item in ahead:
            seen.append(item)
    assert seen == [0, 1, 2, 3, 4]


def test_no_item_is_begun_before_the_last_one_was_taken() -> None:
    begun = []

    def items() -> Iterator[int]:
        for index in range(20):
            begun.append(index)
            yield index

    with Ahead(items(), "test") as ahead:
        for item in ahead:
            time.sleep(0.005)
            assert begun[-1] <= item + 1


def test_producer_and_consumer_work_at_the_same_time() -> None:
    together = threading.Barrier(2, timeout=5)

    def items() -> Iterator[int]:
        for index in range(3):
            if index:
                together.wait()  # broken unless the consumer is at work on the item before
            yield index

    with Ahead(items(), "test") as ahead:
        for item in ahead:
            if item < 2:
                together.wait()


def test_leaving_early_ends_the_thread() -> None:
    def items() -> Iterator[int]:
        while True:
            yield 0

    with Ahead(items(), "kdedge-test") as ahead:
        next(iter(ahead))
    assert not any(thread.name == "kdedge-test" for thread in threading.enumerate())


def test_a_wait_can_be_stopped() -> None:
    stop, released = threading.Event(), threading.Event()

    def items() -> Iterator[int]:
        yield 0
        released.wait(30)

    threading.Timer(0.1, stop.set).start()
    with Ahead(items(), "test", stop) as ahead:
        assert list(ahead) == [0]
        released.set()
