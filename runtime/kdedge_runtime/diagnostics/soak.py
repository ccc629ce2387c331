"""A soak: the same run for hours, judged by what it must not do in them."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np

from kdedge_runtime.diagnostics.checklist import Check, bounded
from kdedge_runtime.diagnostics.system_state import BoardState, Throttling, read_board
from kdedge_runtime.prediction import Answer
from kdedge_runtime.stream.statistics import Progress
from kdedge_runtime.util.process import memory_mb, open_files

__all__ = ["Sample", "Soak", "judge", "theil_sen"]

_SAMPLES = 600
_LOOK_EVERY_S = 1.0
_SETTLING = 0.25
"""Share of the soak that is not judged: pools and caches grow to their size in it …"""
_SETTLING_S = 60.0
"""… which took 50 s where it was measured, so that this much is left out of a soak that is three times as long."""
_FEWEST_SAMPLES = 20
_MEMORY_MB = 2.0
"""Growth that is still noise of the allocator. What leaks less than this in a soak is not seen: soak longer."""
_UNSETTLED_SHARE = 0.2
"""Of the memory at the start, growth that a soak too short to settle may show."""
_FILES = 2
"""A visitor of the web view may come and stay."""
_DROP_POINTS = 5.0
_AGE_MS, _AGE_SHARE = 5.0, 0.25


@dataclass(frozen=True)
class Sample:
    """The process at one moment."""

    time_s: float
    memory_mb: float | None
    open_files: int | None
    frames: int
    """Answered since the start."""
    dropped: int
    age_ms: float
    """Of the newest answer."""


class Soak:
    """A sink that watches the process for a while, then ends the run."""

    wants_overlay = False

    def __init__(
        self,
        duration_s: float,
        stop: threading.Event,
        look: Callable[[], BoardState] = read_board,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Set up the watch.

        Args:
            duration_s: how long.
            stop: ends the run.
            look: reads the state of the board.
            clock: seconds, in steps of its own.
        """
        self.samples: list[Sample] = []
        self._duration_s = duration_s
        self._look, self._clock = look, clock
        self._timer = threading.Timer(duration_s, stop.set)
        self._timer.daemon = True
        self._next_s = self._next_look_s = 0.0

    def __enter__(self) -> Self:
        self._started_s = self._clock()
        self._throttling = Throttling(self._look())
        self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._timer.cancel()

    def write(self, answer: Answer, progress: Progress) -> None:
        """Take a sample where one is due."""
        elapsed_s = self._clock() - self._started_s
        if elapsed_s < self._next_s:
            return
        self._next_s = elapsed_s + self._duration_s / _SAMPLES
        if elapsed_s >= self._next_look_s:
            self._throttling.look(self._look())
            self._next_look_s = elapsed_s + _LOOK_EVERY_S
        self.samples.append(
            Sample(elapsed_s, memory_mb(), open_files(), progress.frames, progress.dropped, answer.age_ms)
        )

    def checks(self) -> list[Check]:
        """The verdict."""
        reasons = self._throttling.reasons
        board = Check("board", ", ".join(reasons) or "held nothing back", "not throttled", not reasons)
        return [*judge(self.samples, self._duration_s), board]


def judge(samples: Sequence[Sample], duration_s: float) -> list[Check]:
    """Hold a soak against its bounds.

    Memory must not grow by more than the noise of the allocator, by the median of all slopes between two samples
    (Theil, 1950; Sen, 1968), which single spikes do not move. A soak of less than three minutes is over before memory
    has settled, and only shows great leaks. The others compare the last third with the first.

    Args:
        samples: in the order of time.
        duration_s: how long the soak was to take.
    """
    lasted_s = samples[-1].time_s if samples else 0.0
    # The last sample comes with the last answer, a frame or two before the end.
    full = Check("duration", f"{lasted_s:.1f} s", f">= {0.95 * duration_s:.1f} s", lasted_s >= 0.95 * duration_s)
    is_settled = lasted_s >= 3 * _SETTLING_S
    from_s = max(_SETTLING * lasted_s, _SETTLING_S if is_settled else 0.0)
    judged = [sample for sample in samples if sample.time_s >= from_s]
    if len(judged) < _FEWEST_SAMPLES:
        return [full, Check("samples", str(len(judged)), f">= {_FEWEST_SAMPLES}", False)]
    third = len(judged) // 3
    first, last = judged[:third], judged[-third:]
    age_ms = float(np.median([sample.age_ms for sample in first]))
    age_drift_ms = float(np.median([sample.age_ms for sample in last])) - age_ms
    return [
        full,
        _memory(judged, is_settled),
        _files(first, last),
        bounded("drop rate", _drop_percent(last) - _drop_percent(first), _DROP_POINTS, "{:+.1f} points"),
        bounded("frame age", age_drift_ms, max(_AGE_MS, _AGE_SHARE * age_ms), "{:+.1f} ms"),
    ]


def theil_sen(times: Sequence[float], values: Sequence[float]) -> float:
    """The slope of values over times: the median of the slopes between any two points."""
    x, y = np.asarray(times, dtype=np.float64), np.asarray(values, dtype=np.float64)
    early, late = np.triu_indices(len(x), k=1)
    return float(np.median((y[late] - y[early]) / (x[late] - x[early])))


def _memory(judged: Sequence[Sample], is_settled: bool) -> Check:
    known = [(sample.time_s, sample.memory_mb) for sample in judged if sample.memory_mb is not None]
    if len(known) < len(judged):
        return Check("memory", "not judged: the system does not tell", "", None)
    times, values = zip(*known, strict=True)
    slope = theil_sen(times, values)
    growth_mb = slope * (times[-1] - times[0])
    check = bounded("memory", growth_mb, _MEMORY_MB if is_settled else _UNSETTLED_SHARE * values[0], "{:+.2f} MB")
    return Check(check.name, f"{check.found} ({slope * 3600:+.1f} MB an hour)", check.asked, check.passed)


def _files(first: Sequence[Sample], last: Sequence[Sample]) -> Check:
    before, after = ([sample.open_files for sample in part if sample.open_files is not None] for part in (first, last))
    if not before or not after:
        return Check("open files", "not judged: the system does not tell", "", None)
    # The fewest of each, since what comes and goes is no leak.
    return bounded("open files", min(after) - min(before), _FILES, "{:+d}")


def _drop_percent(part: Sequence[Sample]) -> float:
    answered, dropped = part[-1].frames - part[0].frames, part[-1].dropped - part[0].dropped
    return 100 * dropped / max(answered + dropped, 1)
