"""Soak test: run for hours, then check memory, open files, dropped frames and latency for growth."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np

from kdedge_runtime.diagnostics.checklist import DeviceCheck, check_bound
from kdedge_runtime.diagnostics.system_state import SystemState, Throttling, read_system_state
from kdedge_runtime.prediction import Prediction
from kdedge_runtime.stream.statistics import RunProgress
from kdedge_runtime.util.process import memory_mb, open_files

__all__ = ["SoakSample", "SoakTest", "evaluate_soak", "theil_sen"]

_SAMPLES = 600
_STATE_EVERY_S = 1.0
_SETTLING = 0.25
"""Share of the soak excluded from the checks, during which pools and caches grow."""
_SETTLING_S = 60.0
"""Excluded time in seconds for soaks at least three times as long. Memory was measured to settle in 50 s."""
_MIN_SAMPLES = 20
_MEMORY_MB = 2.0
"""Memory growth in MB attributed to the allocator. A smaller leak needs a longer soak to detect."""
_UNSETTLED_SHARE = 0.2
"""Allowed memory growth, as a share of the initial memory, in a soak too short to settle."""
_FILES = 2
"""Allowed growth in open files, e.g. a web view client that stays connected."""
_DROP_POINTS = 5.0
_AGE_MS, _AGE_SHARE = 5.0, 0.25


@dataclass(frozen=True)
class SoakSample:
    """Process statistics at one time."""

    time_s: float
    memory_mb: float | None
    open_files: int | None
    frames: int
    """Frames predicted since the start."""
    dropped: int
    age_ms: float
    """Age of the latest prediction in milliseconds."""


class SoakTest:
    """Sink that samples process statistics and ends the run after a given time."""

    wants_overlay = False

    def __init__(
        self,
        duration_s: float,
        stop: threading.Event,
        read_state: Callable[[], SystemState] = read_system_state,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create a soak test.

        Args:
            duration_s: duration in seconds.
            stop: event that ends the run.
            read_state: function that reads the board state.
            clock: monotonic clock in seconds.
        """
        self.samples: list[SoakSample] = []
        self._duration_s = duration_s
        self._read_state, self._clock = read_state, clock
        self._timer = threading.Timer(duration_s, stop.set)
        self._timer.daemon = True
        self._next_s = self._next_state_s = 0.0

    def __enter__(self) -> Self:
        self._started_s = self._clock()
        self._throttling = Throttling(self._read_state())
        self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._timer.cancel()

    def write(self, prediction: Prediction, progress: RunProgress) -> None:
        """Take a sample if one is due."""
        elapsed_s = self._clock() - self._started_s
        if elapsed_s < self._next_s:
            return
        self._next_s = elapsed_s + self._duration_s / _SAMPLES
        if elapsed_s >= self._next_state_s:
            self._throttling.add(self._read_state())
            self._next_state_s = elapsed_s + _STATE_EVERY_S
        self.samples.append(
            SoakSample(elapsed_s, memory_mb(), open_files(), progress.frames, progress.dropped, prediction.age_ms)
        )

    def checks(self) -> list[DeviceCheck]:
        """Return the results of the checks."""
        reasons = self._throttling.reasons
        board = DeviceCheck("board", ", ".join(reasons) or "not throttled", "not throttled", not reasons)
        return [*evaluate_soak(self.samples, self._duration_s), board]


def evaluate_soak(samples: Sequence[SoakSample], duration_s: float) -> list[DeviceCheck]:
    """Check the samples of a soak test.

    Memory growth is the median slope between any two samples (Theil, 1950; Sen, 1968), which is robust to spikes. It
    must not exceed allocator noise. A soak under three minutes ends before memory has settled and detects only large
    leaks. The other checks compare the last third with the first.

    Args:
        samples: samples in chronological order.
        duration_s: intended duration in seconds.
    """
    lasted_s = samples[-1].time_s if samples else 0.0
    # The last sample is taken with the last prediction, one or two frames before the end.
    full = DeviceCheck("duration", f"{lasted_s:.1f} s", f">= {0.95 * duration_s:.1f} s", lasted_s >= 0.95 * duration_s)
    is_settled = lasted_s >= 3 * _SETTLING_S
    from_s = max(_SETTLING * lasted_s, _SETTLING_S if is_settled else 0.0)
    selected = [sample for sample in samples if sample.time_s >= from_s]
    if len(selected) < _MIN_SAMPLES:
        return [full, DeviceCheck("samples", str(len(selected)), f">= {_MIN_SAMPLES}", False)]
    third = len(selected) // 3
    first, last = selected[:third], selected[-third:]
    age_ms = float(np.median([sample.age_ms for sample in first]))
    age_drift_ms = float(np.median([sample.age_ms for sample in last])) - age_ms
    return [
        full,
        _memory(selected, is_settled),
        _files(first, last),
        check_bound("drop rate", _drop_percent(last) - _drop_percent(first), _DROP_POINTS, "{:+.1f} points"),
        check_bound("frame age", age_drift_ms, max(_AGE_MS, _AGE_SHARE * age_ms), "{:+.1f} ms"),
    ]


def theil_sen(times: Sequence[float], values: Sequence[float]) -> float:
    """Return the Theil-Sen slope: the median of the slopes between any two points."""
    x, y = np.asarray(times, dtype=np.float64), np.asarray(values, dtype=np.float64)
    early, late = np.triu_indices(len(x), k=1)
    return float(np.median((y[late] - y[early]) / (x[late] - x[early])))


def _memory(selected: Sequence[SoakSample], is_settled: bool) -> DeviceCheck:
    known = [(sample.time_s, sample.memory_mb) for sample in selected if sample.memory_mb is not None]
    if len(known) < len(selected):
        return DeviceCheck("memory", "not evaluated: not available on this system", "", None)
    times, values = zip(*known, strict=True)
    slope = theil_sen(times, values)
    growth_mb = slope * (times[-1] - times[0])
    check = check_bound("memory", growth_mb, _MEMORY_MB if is_settled else _UNSETTLED_SHARE * values[0], "{:+.2f} MB")
    return DeviceCheck(check.name, f"{check.found} ({slope * 3600:+.1f} MB per hour)", check.expected, check.passed)


def _files(first: Sequence[SoakSample], last: Sequence[SoakSample]) -> DeviceCheck:
    before, after = ([sample.open_files for sample in part if sample.open_files is not None] for part in (first, last))
    if not before or not after:
        return DeviceCheck("open files", "not evaluated: not available on this system", "", None)
    # Minima, because temporarily open files are not a leak.
    return check_bound("open files", min(after) - min(before), _FILES, "{:+d}")


def _drop_percent(part: Sequence[SoakSample]) -> float:
    predicted, dropped = part[-1].frames - part[0].frames, part[-1].dropped - part[0].dropped
    return 100 * dropped / max(predicted + dropped, 1)
