"""Recordings in CSV or Parquet files, cut into windows; all have the same channels and the same rate."""

import logging
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Self

from kdedge.data.samples import StoredSample
from kdedge.data.series_samples import SeriesLayout, UnreadableRecording, WindowSample
from kdedge_runtime.errors import DataError, SourceError, UsageError
from kdedge_runtime.modalities import InputSpec
from kdedge_runtime.modalities.timeseries import TimeseriesInput
from kdedge_runtime.sources.timeseries.columns import ColumnPlan, SeriesColumn, check_units
from kdedge_runtime.sources.timeseries.cutter import SeriesWindow, WindowCutter
from kdedge_runtime.sources.timeseries.series_rows import SeriesRow, iterate_rows, read_plan
from kdedge_runtime.util.files import displayable

__all__ = ["RecordingReader"]

_log = logging.getLogger(__name__)
_SAME_RATE = 0.05
"""Largest accepted difference between the rates of two recordings."""
_OVERLAP = 2
"""Windows that each row of a recording is in, except at its ends."""
_LENGTH = re.compile(r"(?P<number>\d+(?:\.\d+)?)(?P<unit>ms|s|m|)")
_UNITS_S = {"ms": 1e-3, "s": 1.0, "m": 60.0}


class _NoWindow(DataError):
    """Damaged recording, or one that is shorter than a window."""


@dataclass(frozen=True)
class _Shape:
    """Channels, rate and window length of the first recording."""

    layout: SeriesLayout
    length: int
    path: Path


class RecordingReader:
    """Reader of the recordings of one dataset. The first one determines channels, rate and window length."""

    def __init__(self, window: str | None) -> None:
        """Start without recordings.

        Args:
            window: length of a window, a time such as `2s` or a number of rows; None takes each file as one window.

        Raises:
            UsageError: the length is invalid.
        """
        self.breaks: Counter[str] = Counter()
        """Number of windows in progress that were dropped, by reason."""
        self._units: dict[str, str] = {}
        self._window = window
        self._shape: _Shape | None = None
        if window is not None and _LENGTH.fullmatch(window) is None:
            raise UsageError(
                f"--window {window} is not a length. Expected a time such as 2s, or a number of rows such as 128."
            )

    @classmethod
    def like(cls, sample: WindowSample) -> Self:
        """Create a reader of further recordings for a dataset, with the channels, rate and length of its windows."""
        reader = cls(str(len(sample.values)))
        reader._shape = _Shape(sample.layout, len(sample.values), Path(sample.path))
        names_and_units = zip(sample.layout.channels, sample.layout.units, strict=False)  # units may be unknown
        reader._units = {name: unit for name, unit in names_and_units if unit}
        return reader

    @property
    def channels(self) -> tuple[str, ...]:
        """Channel names of the first recording; empty before it is read."""
        return () if self._shape is None else self._shape.layout.channels

    def samples_of(self, root: Path, path: Path) -> tuple[StoredSample, ...]:
        """Return the windows of a file, without the labels of its rows.

        A file that is damaged or shorter than a window has one sample, whose `read` raises.

        Raises:
            DataError: the file differs from the others.
        """
        try:
            return tuple(sample for sample, _ in self.labeled_samples(root, path, has_labels=False))
        except _NoWindow as error:
            return (UnreadableRecording(displayable(path.relative_to(root).as_posix()), str(path), str(error)),)

    def labeled_samples(self, root: Path, path: Path, *, has_labels: bool) -> list[tuple[WindowSample, str]]:
        """Return the windows of a file with their labels; a window with rows of several labels is dropped.

        Args:
            root: folder of the dataset.
            path: CSV or Parquet file.
            has_labels: False to ignore the column of labels.

        Raises:
            DataError: the file is damaged, has no window, or differs from the others.
        """
        try:
            rows = self._read(path, has_labels)
            shape = self._shape = self._shape or self._measure(path, rows)
            self._check_rate(path, rows, shape)
            windows = list(self._cut(path, rows, shape, has_labels))
        except SourceError as error:
            raise DataError(str(error)) from error
        if not windows:
            raise _NoWindow(f"{path} has no window of {shape.length:,} consecutive rows, only {len(rows):,} rows.")
        name, is_whole = displayable(path.relative_to(root).as_posix()), self._window is None
        return [
            (
                WindowSample(
                    name if is_whole else f"{name}#{window.first_row:07d}", str(path), window.values, shape.layout
                ),
                label,
            )
            for window, label in windows
        ]

    def check_input(self, spec: InputSpec) -> None:
        """Raise unless a model takes windows of these units and this rate; unknown ones fit any.

        Raises:
            DataError: rate or units differ.
        """
        if self._shape is None or not isinstance(spec, TimeseriesInput):
            return
        columns = [SeriesColumn(name, self._units.get(name, "")) for name in self.channels]
        check_units(columns, spec.channel_units, "The dataset")
        rate_hz = self._shape.layout.rate_hz
        if rate_hz is not None and spec.rate_hz is not None and abs(rate_hz / spec.rate_hz - 1) > _SAME_RATE:
            raise DataError(
                f"The dataset has {rate_hz:g} rows per second, but the model was trained with {spec.rate_hz:g}. "
                "Expected the same rate: resample the recordings."
            )

    def warn(self) -> None:
        """Log the number of windows that were dropped, once per process."""
        if self.breaks:
            _warn_once(", ".join(f"{count:,} ({reason})" for reason, count in sorted(self.breaks.items())))

    def _read(self, path: Path, has_labels: bool) -> list[SeriesRow]:
        wanted = None if self._shape is None else self._shape.layout.channels
        with _damage():
            plan = read_plan(path, None)
        if wanted is not None:
            plan = read_plan(path, wanted)
        self._compare_units(path, plan)
        if has_labels and plan.label_at is None:
            raise SourceError(
                f"{path} has no column of labels. Expected one named label, class, activity or target, or one folder "
                "of recordings per class."
            )
        with _damage():
            rows = list(iterate_rows(path, plan))
        if not rows:
            raise _NoWindow(f"{path} has no rows. Expected numbers below a header.")
        for number, (before, after) in enumerate(pairwise(rows), start=2):
            if before.time_s is not None and after.time_s is not None and after.time_s < before.time_s:
                raise _NoWindow(
                    f"{path}: the timestamp of row {number:,} is before that of the row above. Expected rows in the "
                    "order of time: sort them, or divide the file."
                )
        return rows

    def _compare_units(self, path: Path, plan: ColumnPlan) -> None:
        check_units(plan.channels, self._units, str(path))
        self._units |= {column.name: column.unit for column in plan.channels if column.unit}

    def _measure(self, path: Path, rows: Sequence[SeriesRow]) -> _Shape:
        plan = read_plan(path, None)
        units = tuple(column.unit for column in plan.channels)
        rate_hz = _rate_hz(rows)
        names = tuple(column.name for column in plan.channels)
        layout = SeriesLayout(names, rate_hz, units if any(units) else ())
        return _Shape(layout, self._length(len(rows), rate_hz), path)

    def _length(self, rows: int, rate_hz: float | None) -> int:
        """Return the length of a window in rows."""
        if self._window is None:
            return rows
        found = _LENGTH.fullmatch(self._window)
        assert found is not None
        if not found["unit"]:
            length = float(found["number"])
            if length != int(length) or length < 2:
                raise UsageError(f"--window {self._window} is not a number of rows. Expected 2 or more, or a time: 2s.")
            return int(length)
        if rate_hz is None:
            raise UsageError(
                f"--window {self._window} is a time, but the recordings have no timestamps. Give a number of rows, "
                "such as --window 128."
            )
        length = round(float(found["number"]) * _UNITS_S[found["unit"]] * rate_hz)
        if length < 2:
            raise UsageError(
                f"--window {self._window} has {length} rows at {rate_hz:g} per second. Expected 2 or more."
            )
        return length

    def _check_rate(self, path: Path, rows: Sequence[SeriesRow], shape: _Shape) -> None:
        if self._window is None and len(rows) != shape.length:
            raise SourceError(
                f"{path} has {len(rows):,} rows, but {shape.path.name} has {shape.length:,}. Expected files of one "
                "length, each a window; or cut recordings into windows with --window, such as --window 2s."
            )
        rate_hz, expected_hz = _rate_hz(rows), shape.layout.rate_hz
        if (rate_hz is None) != (expected_hz is None):
            raise SourceError(f"Only one of {path} and {shape.path.name} has timestamps. Expected them in all or none.")
        if rate_hz is not None and expected_hz is not None and abs(rate_hz / expected_hz - 1) > _SAME_RATE:
            raise SourceError(
                f"{path} has {rate_hz:g} rows per second, but {shape.path.name} has {expected_hz:g}. Expected "
                "recordings of one rate: resample them."
            )

    def _cut(
        self, path: Path, rows: Sequence[SeriesRow], shape: _Shape, has_labels: bool
    ) -> Iterator[tuple[SeriesWindow, str]]:
        hop = max(1, shape.length // _OVERLAP)
        if self._window is None:
            yield _whole(path, rows, shape, has_labels)
            return
        cutter = WindowCutter(shape.length, hop, shape.layout.rate_hz, str(path))
        for row in rows:
            label = (row.label or "") if has_labels else ""
            if has_labels and not label:
                cutter.interrupt("label")  # rows between two activities
                continue
            window = cutter.push(row.time_s, row.values, label)
            if window is not None:
                yield window, label
        self.breaks.update(cutter.breaks)


@contextmanager
def _damage() -> Iterator[None]:
    try:
        yield
    except SourceError as error:
        raise _NoWindow(str(error)) from error


def _whole(path: Path, rows: Sequence[SeriesRow], shape: _Shape, has_labels: bool) -> tuple[SeriesWindow, str]:
    """Return all rows as one window with its label.

    Raises:
        SourceError: the label changes or is missing, or the window would span a gap.
    """
    labels = {row.label or "" for row in rows} if has_labels else {""}
    if has_labels and (len(labels) > 1 or "" in labels):
        fault = "several labels" if len(labels) > 1 else "no label"
        raise SourceError(
            f"{path} has {fault}, but without --window a file is one window. Cut it with --window, such as --window 2s."
        )
    cutter = WindowCutter(len(rows), 1, shape.layout.rate_hz, str(path))
    for row in rows:  # NaN is reported when the sample is read, so that no file disappears
        cutter.push(row.time_s, (0.0,))
    if cutter.breaks:
        raise SourceError(
            f"{path} has a break ({', '.join(cutter.breaks)}), but without --window a file is one window. Cut it with "
            "--window, such as --window 2s."
        )
    return SeriesWindow.of_rows([row.values for row in rows]), labels.pop()


@cache
def _warn_once(counts: str) -> None:
    _log.warning("Windows that were dropped because they span a break: %s.", counts)


def _rate_hz(rows: Sequence[SeriesRow]) -> float | None:
    """Return the rows per second by the median interval, to four digits; None without timestamps."""
    times = [row.time_s for row in rows if row.time_s is not None]
    if len(times) < 2:
        return None
    period_s = median(after - before for before, after in pairwise(times))
    if period_s <= 0:
        raise SourceError("More than half of the timestamps are equal. Expected one time per row, with fractions.")
    return float(f"{1 / period_s:.4g}")
