"""Latency statistics of calls and of frame stages, in constant memory."""

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

__all__ = ["WINDOW", "CpuShare", "StageLatency", "StageTimer", "Stopwatch", "StageTally", "fastest_ms", "latencies_ms"]

WINDOW = 2048
"""Number of recent samples used for percentiles. Means include all samples."""
_WARM_UPS = 5
_MIN_SHARE = 0.9
"""Minimum share of one core that a measurement gets on an idle machine."""


def latencies_ms(*calls: Callable[[], object], runs: int = 30) -> tuple[float, ...]:
    """Return the median latency of each call in ms. Calls alternate, so that a slowdown affects all of them.

    Args:
        calls: functions to measure.
        runs: measured runs per function, after five warm-up runs.
    """
    return tuple(float(np.median(laps)) for laps in _laps_ms(calls, runs))


def fastest_ms(*calls: Callable[[], object], runs: int = 30) -> tuple[float, ...]:
    """Return the minimum latency of each call in ms. Other processes can only increase latency, never reduce it.

    Args:
        calls: functions to measure.
        runs: measured runs per function, after five warm-up runs.
    """
    return tuple(float(min(laps)) for laps in _laps_ms(calls, runs))


def _laps_ms(calls: Sequence[Callable[[], object]], runs: int) -> list[list[float]]:
    watches = [Stopwatch() for _ in calls]
    for _ in range(_WARM_UPS + runs):
        for call, watch in zip(calls, watches, strict=True):
            with watch:
                call()
    return [list(watch.laps_ms[_WARM_UPS:]) for watch in watches]


@dataclass
class CpuShare:
    """Detects interference from other processes during a compute-bound block."""

    is_busy: bool = False
    """True if the block got less than 90% of one core, or if more processes were runnable than there are cores."""
    _started: tuple[float, float] = (0.0, 0.0)

    def __enter__(self) -> "CpuShare":
        self._started = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        taken, computed = time.perf_counter() - self._started[0], time.process_time() - self._started[1]
        # One-minute load average; not available on Windows.
        waiting = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
        self.is_busy = computed < _MIN_SHARE * taken or waiting > (os.cpu_count() or 1)


@dataclass(frozen=True)
class StageLatency:
    """Latency statistics of one stage, in milliseconds."""

    count: int
    mean_ms: float
    p50_ms: float
    p95_ms: float
    p99_ms: float


class StageTally:
    """Running statistics of durations, in constant memory."""

    def __init__(self) -> None:
        self._count = 0
        self._sum_ms = 0.0
        self._recent: deque[float] = deque(maxlen=WINDOW)

    def add(self, duration_ms: float) -> None:
        """Add one duration."""
        self._count += 1
        self._sum_ms += duration_ms
        self._recent.append(duration_ms)

    def stage(self) -> StageLatency | None:
        """Return the statistics so far; None without samples."""
        # A copy, because the web view reads from another thread.
        recent = self._recent.copy()
        if not recent:
            return None
        p50, p95, p99 = np.percentile(list(recent), [50, 95, 99]).tolist()
        return StageLatency(self._count, self._sum_ms / self._count, p50, p95, p99)


@dataclass
class Stopwatch:
    """Records the duration of each block as a lap."""

    laps_ms: list[float] = field(default_factory=list)
    _started: float = 0.0

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.laps_ms.append((time.perf_counter() - self._started) * 1e3)


class StageTimer:
    """Latency statistics for each stage of a frame."""

    def __init__(self, names: tuple[str, ...], clock: Callable[[], float] = time.perf_counter) -> None:
        self._tallies = {name: StageTally() for name in names}
        self._clock = clock

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Record the block's duration as a sample of the stage, unless it raises."""
        started = self._clock()
        yield
        self._tallies[name].add((self._clock() - started) * 1e3)

    def stages(self) -> dict[str, StageLatency]:
        """Return the statistics of every stage with samples, in processing order."""
        figures = {name: tally.stage() for name, tally in self._tallies.items()}
        return {name: stage for name, stage in figures.items() if stage is not None}
