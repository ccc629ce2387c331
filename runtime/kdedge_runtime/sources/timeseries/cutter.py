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

__all__ = ["Break", "SeriesWindow", "WindowCutter", "longest_gap_s"]

_log = logging.getLogger(__name__)
_MAX_GAP = 3.5
"""Largest time between two rows, in periods: up to three rows may be lost."""
_MAX_GAPS = 10
"""Gaps in succession, after which the rows have another rate."""
_RATE_TOLERANCE = 0.25
"""Largest accepted difference between the rate of the rows and that of the model."""
_MAX_OFF = 3
"""Windows at another rate in succession, after which the rows have another rate."""
_LARGEST = float(np.finfo(np.float32).max)

Break: TypeAlias = Literal["backwards", "gap", "rate", "missing", "label", "lost", "silence"]
"""Reason why a window in progress was dropped: time runs backwards, rows are missing or come at another rate, a value
is missing, the label changes, a line is damaged or lost, or the sensor stops.
"""
_SENTENCES: dict[Break, str] = {
    "backwards": "the timestamps of %s go backwards, at %s",
    "gap": "%s has a gap at %s",
    "rate": "%s has rows at another rate at %s",
    "lost": "lines of %s are damaged or lost at %s",
    "missing": "%s has a value that is missing or not finite, at %s",
}


def longest_gap_s(rate_hz: float | None) -> float:
    """Return the largest time between two rows of one window in seconds; infinite for a series without a clock."""
    return math.inf if rate_hz is None else _MAX_GAP / rate_hz


@dataclass(frozen=True, eq=False)
class SeriesWindow:
    """Window of consecutive rows."""

    values: Floats
    """Values float32 `[T, C]`."""
    first_row: int
    """Number of its first row, from 0."""
    span_s: tuple[float, float] | None
    """Start and end in seconds of stream time, see `WindowCutter`; None without a clock."""

    @classmethod
    def of_rows(cls, rows: Sequence[Sequence[float]]) -> "SeriesWindow":
        """Create a window of all rows of a file."""
        return cls(np.array(rows, np.float32), 0, None)


class WindowCutter:
    """Cuts rows into windows of equal length at a regular interval.

    The rows before a break are dropped unless they have filled a window. Rows without timestamps are a period apart.
    Stream time begins with the first row. It never runs backwards: after a restart of the sensor's clock it goes on.
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
        self._offset_s: float | None = None
        self._stream_s: float | None = None
        self._known: tuple[float, int] | None = None
        self._is_checked = False
        self._label: str | None = None
        self._gaps = self._off = 0

    def push(self, time_s: float | None, values: Sequence[float], label: str | None = None) -> SeriesWindow | None:
        """Add a row, and return the window that it completes, if any.

        Args:
            time_s: time of the row in seconds, of any origin; None for a row without a timestamp.
            values: values of the C channels.
            label: class of the row, which is the same throughout a window.

        Raises:
            SourceError: the rate of rows differs from that of the model.
        """
        self._advance(time_s)
        self._break_before(time_s, label)
        self._label = label
        self._count += 1
        if not all(abs(value) <= _LARGEST for value in values):
            self.interrupt("missing")
            return None
        if time_s is not None:
            self._known = time_s, self._count
        self._rows.append(values)
        self._times.append(self._stream_s)
        self._until -= 1
        if self._until > 0 or not self._has_rate():
            return None
        self._until = self._hop
        return SeriesWindow(np.array(self._rows, np.float32), self._count - self._length, self._span_s())

    def interrupt(self, reason: Break) -> None:
        """Drop the window in progress, such as when a sensor stops; the first time with a warning.

        Args:
            reason: reason for the break.
        """
        if not self._rows and (reason != "missing" or self.breaks[reason]):
            return  # nothing is dropped
        if not self.breaks[reason] and reason in _SENTENCES:
            at = f"row {self._count}" if self._stream_s is None else f"{self._stream_s:.3f} s"
            _log.warning(_SENTENCES[reason] + ": windows across it are dropped", self._name, at)
        self.breaks[reason] += 1
        self._rows.clear()
        self._times.clear()
        self._known = None
        self._until = self._length

    def _advance(self, time_s: float | None) -> None:
        """Set the stream time of the next row."""
        before_s, period_s = self._stream_s, self._period_s or 0.0
        if time_s is None:
            if self._period_s is not None:
                self._stream_s = 0.0 if before_s is None else before_s + period_s
            return
        least_s = 0.0 if before_s is None else before_s
        if self._offset_s is None or time_s + self._offset_s <= least_s:
            self._offset_s = (0.0 if before_s is None else before_s + period_s) - time_s
        self._stream_s = time_s + self._offset_s

    def _break_before(self, time_s: float | None, label: str | None) -> None:
        if not self._rows:
            return
        if label != self._label:
            self.interrupt("label")
        elif time_s is not None and self._known is not None:
            before_s, at = self._known
            elapsed_s, untimed = time_s - before_s, self._count - at
            if elapsed_s <= 0:
                self.interrupt("backwards")
            elif self._period_s is not None and elapsed_s > (_MAX_GAP + untimed) * self._period_s:
                self._gaps += 1
                if self._gaps >= _MAX_GAPS:
                    raise self._other_rate(1 / elapsed_s, self._period_s)
                self.interrupt("gap")
            else:
                self._gaps = 0

    def _has_rate(self) -> bool:
        """Compare the rate of the window in progress with that of the model; a window at another one is dropped.

        Raises:
            SourceError: the first window, or several in succession, have another rate.
        """
        first_s, last_s = self._times[0], self._times[-1]
        if self._period_s is None or first_s is None or last_s is None or self._length < 2:
            return True
        periods = self._length - 1
        rate_hz = periods / (last_s - first_s)
        # A few lost rows are accepted, but not before the rate is known.
        lost_s = (_MAX_GAP - 1) * self._period_s if self._is_checked else 0.0
        slow_hz = periods / (last_s - first_s - lost_s) if last_s - first_s > lost_s else math.inf
        least, most = 1 - _RATE_TOLERANCE, 1 + _RATE_TOLERANCE
        if rate_hz * self._period_s <= most and slow_hz * self._period_s >= least:
            self._is_checked, self._off = True, 0
            return True
        self._off += 1
        if not self._is_checked or self._off >= _MAX_OFF:
            raise self._other_rate(rate_hz, self._period_s)
        self.interrupt("rate")
        return False

    def _other_rate(self, rate_hz: float, period_s: float) -> SourceError:
        return SourceError(
            f"{self._name} has {rate_hz:.4g} rows per second, but the model was trained with {1 / period_s:.4g}. "
            "Record at that rate, or resample the rows."
        )

    def _span_s(self) -> tuple[float, float] | None:
        first_s, last_s = self._times[0], self._times[-1]
        if first_s is None or last_s is None:
            return None
        return first_s, last_s + (self._period_s or 0.0)
