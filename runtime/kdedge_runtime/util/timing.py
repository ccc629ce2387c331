"""How long calls take, and each stage of a frame, without growing on a device that runs for months."""

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

__all__ = ["WINDOW", "CpuShare", "Stage", "StageTimer", "Stopwatch", "Tally", "fastest_ms", "latencies_ms"]

WINDOW = 2048
"""Percentiles are those of this many most recent samples; means are of all."""
_WARM_UPS = 5
_LEAST_SHARE = 0.9
"""Least share of one core that a measurement gets on an idle machine."""


def latencies_ms(*calls: Callable[[], object], runs: int = 30) -> tuple[float, ...]:
    """Median latency of each call, made in turn so that a machine that slows down slows all.

    Args:
        calls: what to measure.
        runs: counted runs of each, after five that are not.
    """
    return tuple(float(np.median(laps)) for laps in _laps_ms(calls, runs))


def fastest_ms(*calls: Callable[[], object], runs: int = 30) -> tuple[float, ...]:
    """The fastest of each call's runs, made in turn: what else a machine does makes them slower, never faster.

    Args:
        calls: what to measure.
        runs: counted runs of each, after five that are not.
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
    """Watches over a block that computes without a pause, on one thread or more, for programs that disturb it."""

    is_busy: bool = False
    """True where the block had less than nine tenths of one core, or more programs ran than there are cores."""
    _started: tuple[float, float] = (0.0, 0.0)

    def __enter__(self) -> "CpuShare":
        self._started = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        taken, computed = time.perf_counter() - self._started[0], time.process_time() - self._started[1]
        # A minute's mean of what runs or waits; Windows has none.
        waiting = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
        self.is_busy = computed < _LEAST_SHARE * taken or waiting > (os.cpu_count() or 1)


@dataclass(frozen=True)
class Stage:
    """One stage's figures in milliseconds."""

    count: int
    mean_ms: float
    p50_ms: float
    p95_ms: float
    p99_ms: float


class Tally:
    """Figures of a stream of durations, in constant memory."""

    def __init__(self) -> None:
        self._count = 0
        self._sum_ms = 0.0
        self._recent: deque[float] = deque(maxlen=WINDOW)

    def add(self, duration_ms: float) -> None:
        """Take in one duration."""
        self._count += 1
        self._sum_ms += duration_ms
        self._recent.append(duration_ms)

    def stage(self) -> Stage | None:
        """The figures so far; None before the first duration."""
        # A copy, since the web view asks from another thread.
        recent = self._recent.copy()
        if not recent:
            return None
        p50, p95, p99 = np.percentile(list(recent), [50, 95, 99]).tolist()
        return Stage(self._count, self._sum_ms / self._count, p50, p95, p99)


@dataclass
class Stopwatch:
    """Times blocks, each as one lap."""

    laps_ms: list[float] = field(default_factory=list)
    _started: float = 0.0

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.laps_ms.append((time.perf_counter() - self._started) * 1e3)


class StageTimer:
    """Named stopwatches, one for each stage of a frame."""

    def __init__(self, names: tuple[str, ...], clock: Callable[[], float] = time.perf_counter) -> None:
        self._tallies = {name: Tally() for name in names}
        self._clock = clock

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Time the block as one sample of the stage; a block that raises is no sample."""
        started = self._clock()
        yield
        self._tallies[name].add((self._clock() - started) * 1e3)

    def stages(self) -> dict[str, Stage]:
        """The figures of every stage that has run, in the order of a frame's way."""
        figures = {name: tally.stage() for name, tally in self._tallies.items()}
        return {name: stage for name, stage in figures.items() if stage is not None}
