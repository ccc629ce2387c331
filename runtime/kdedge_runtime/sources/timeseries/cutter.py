"""Windows cut from rows that arrive one after another; a window never spans a gap, a jump in time or a bad value."""

import logging
import math
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from kdedge_runtime.errors import SourceError
from kdedge_runtime.util.arrays import Floats

__all__ = ["Break", "SeriesWindow", "WindowCutter"]

_log = logging.getLogger(__name__)
_LONGEST_GAP = 3.5
"""Largest time between two rows, in periods: up to three rows may be lost."""
_MOST_GAPS = 10
"""Gaps in succession, after which the rows have another rate."""
_RATE_TOLERANCE = 0.25
"""Largest accepted difference between the rate of the rows and that of the model."""

Break: TypeAlias = Literal["backwards", "gap", "missing", "label", "silence"]
"""Reason why a window in progress was dropped: time runs backwards, rows or values are missing, the label changes, or
the sensor stops.
"""
_SENTENCES: dict[Break, str] = {
    "backwards": "the timestamps of %s go backwards, at %s",
    "gap": "%s has a gap at %s",
    "missing": "%s has a value that is missing or not finite, at %s",
}


@dataclass(frozen=True)
class SeriesWindow:
    """Window of consecutive rows."""

    values: Floats
    """Values float32 `[T, C]`."""
    first_row: int
    """Number of its first row, from 0."""
    span_s: tuple[float, float] | None
    """Start and end in seconds since the first row; None without a clock."""

    @classmethod
    def of_rows(cls, rows: Sequence[Sequence[float]]) -> "SeriesWindow":
        """Create a window of all rows of a file."""
        return cls(np.array(rows, np.float32), 0, None)


class WindowCutter:
    """Cuts rows into windows of equal length at a regular interval.

    The rows before a break are dropped unless they have filled a window. Rows without timestamps are a period apart.
    """

    def __init__(self, length: int, hop: int, rate_hz: float | None, name: str) -> None:
        """Start without rows.

        Args:
            length: rows of a window.
            hop: rows between the starts of two windows.
            rate_hz: rows per second; None for a series without a clock.
            name: name of the source in messages.
        """
        self.breaks: Counter[Break] = Counter()
        """Number of windows in progress that were dropped, by reason."""
        self._length, self._hop = length, hop
        self._period_s = None if rate_hz is None else 1 / rate_hz
        self._name = name
        self._rows: deque[Sequence[float]] = deque(maxlen=length)
        self._times: deque[float | None] = deque(maxlen=length)
        self._count = 0
        self._until = length
        self._start_s: float | None = None
        self._is_checked = rate_hz is None
        self._label: str | None = None
        self._gaps = 0

    def push(self, time_s: float | None, values: Sequence[float], label: str | None = None) -> SeriesWindow | None:
        """Add a row, and return the window that it completes, if any.

        Args:
            time_s: time of the row in seconds, of any origin; None for a row without a timestamp.
            values: values of the C channels.
            label: class of the row, which is the same throughout a window.

        Raises:
            SourceError: rows arrive at another rate than that of the model.
        """
        self._break_before(time_s, label)
        self._label = label
        if not all(map(math.isfinite, values)):
            self._count += 1
            self.interrupt("missing", time_s)
            return None
        if self._start_s is None and time_s is not None:
            self._start_s = time_s
        self._rows.append(values)
        self._times.append(time_s)
        self._count += 1
        self._until -= 1
        if self._until > 0:
            return None
        self._until = self._hop
        self._check_rate()
        return SeriesWindow(np.array(self._rows, np.float32), self._count - self._length, self._span_s())

    def interrupt(self, reason: Break, time_s: float | None) -> None:
        """Drop the window in progress, such as when a sensor stops; the first time with a warning.

        Args:
            reason: reason for the break.
            time_s: time of the row behind it; None if unknown.
        """
        if not self._rows and (reason == "silence" or self.breaks[reason]):
            return  # nothing is dropped
        if not self.breaks[reason] and reason in _SENTENCES:
            at = f"row {self._count}" if time_s is None else f"{time_s - (self._start_s or time_s):.3f} s"
            _log.warning(_SENTENCES[reason] + ": windows across it are dropped", self._name, at)
        self.breaks[reason] += 1
        self._rows.clear()
        self._times.clear()
        self._until = self._length

    def _break_before(self, time_s: float | None, label: str | None) -> None:
        if not self._rows:
            return
        before_s = self._times[-1]
        if label != self._label:
            self.interrupt("label", time_s)
        elif time_s is not None and before_s is not None:
            if time_s <= before_s:
                self.interrupt("backwards", time_s)
            elif self._period_s is not None and time_s - before_s > _LONGEST_GAP * self._period_s:
                self._gaps += 1
                if self._gaps >= _MOST_GAPS:
                    raise self._other_rate(1 / (time_s - before_s), self._period_s)
                self.interrupt("gap", time_s)
            else:
                self._gaps = 0

    def _check_rate(self) -> None:
        """Compare the rate of the first window with that of the model."""
        first, last = self._times[0], self._times[-1]
        if self._is_checked or self._period_s is None or first is None or last is None or self._length < 2:
            return
        rate_hz = (self._length - 1) / (last - first)
        if not abs(rate_hz * self._period_s - 1) <= _RATE_TOLERANCE:
            raise self._other_rate(rate_hz, self._period_s)
        self._is_checked = True

    def _other_rate(self, rate_hz: float, period_s: float) -> SourceError:
        return SourceError(
            f"{self._name} has {rate_hz:.4g} rows per second, but the model was trained with {1 / period_s:.4g}. "
            "Record at that rate, or resample the rows."
        )

    def _span_s(self) -> tuple[float, float] | None:
        first, last = self._times[0], self._times[-1]
        if first is not None and last is not None and self._start_s is not None:
            return first - self._start_s, last - self._start_s + (self._period_s or 0.0)
        if self._period_s is None:
            return None
        return (self._count - self._length) * self._period_s, self._count * self._period_s
