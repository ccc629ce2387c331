"""How long a call takes on this machine."""

import time
from collections.abc import Callable

import numpy as np

__all__ = ["latency_ms"]

WARM_UPS = 5


def latency_ms(*calls: Callable[[], object], runs: int = 30) -> tuple[float, ...]:
    """Median latency of each call, made in turn so that a machine that slows down slows all.

    Args:
        calls: what to measure.
        runs: counted runs of each, after five that are not.
    """
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(WARM_UPS + runs):
        for call, taken in zip(calls, times, strict=True):
            started = time.perf_counter()
            call()
            taken.append((time.perf_counter() - started) * 1000)
    return tuple(float(np.median(taken[WARM_UPS:])) for taken in times)
