"""Recordings as a source: CSV and Parquet files, cut into windows, and `.ts` files, whose cases are windows."""

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from kdedge_runtime.errors import SourceError
from kdedge_runtime.sources.source import Frame
from kdedge_runtime.sources.timeseries.columns import check_units
from kdedge_runtime.sources.timeseries.cutter import SeriesWindow, WindowCutter
from kdedge_runtime.sources.timeseries.series_rows import is_table_file, iterate_rows, read_plan
from kdedge_runtime.sources.timeseries.ts_file import TS_SUFFIX, read_ts
from kdedge_runtime.util.files import displayable

if TYPE_CHECKING:
    from kdedge_runtime.modalities.timeseries import TimeseriesInput

__all__ = ["RecordedSeries", "is_series_file"]

_log = logging.getLogger(__name__)


def is_series_file(path: Path) -> bool:
    """Return True for a CSV, Parquet or `.ts` file, by its name."""
    return is_table_file(path) or path.suffix.lower() == TS_SUFFIX


class RecordedSeries:
    """Windows of one file, or of all files below a folder in path order.

    In a folder, an unreadable file is logged, counted and skipped. A single unreadable file is an error.
    """

    live = False
    dropped = 0
    reconnects = 0
    expected: int | None = None

    def __init__(self, spec: "TimeseriesInput", path: Path, hop: int) -> None:
        """Create a source. Files are listed on entering.

        Args:
            spec: input of the model.
            path: file or folder.
            hop: steps between the starts of two windows.
        """
        self.name = displayable(str(path))
        self.paths = (path,)
        self.unreadable = 0
        self._spec, self._path, self._hop = spec, path, hop
        self._files: list[Path] = []

    @property
    def fps(self) -> float | None:
        """Windows per second of a single recording; None for a folder or a series without a clock."""
        if self._path.is_dir() or self._path.suffix.lower() == TS_SUFFIX or self._spec.rate_hz is None:
            return None
        return self._spec.rate_hz / self._hop

    def __enter__(self) -> Self:
        self._files = [self._path]
        if self._path.is_dir():
            self._files = sorted(path for path in self._path.rglob("*") if path.is_file() and is_series_file(path))
            if not self._files:
                raise SourceError(
                    f"The folder {self._path} contains no recordings. Expected files named *.csv, *.parquet or *.ts "
                    "in it or below it."
                )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._files = []

    def __iter__(self) -> Iterator[Frame]:
        index = 0
        for file in self._files:
            try:
                for window in self._windows(file):
                    stem = file.relative_to(self._path) if self._path.is_dir() else Path(file.name)
                    name = f"{displayable(stem.as_posix())}-{window.first_row:06d}"
                    yield Frame(index, window.values, time.monotonic(), name, span_s=window.span_s, file=file)
                    index += 1
            except SourceError as error:
                if not self._path.is_dir():
                    raise
                self.unreadable += 1
                _log.warning("skipped: %s", error)

    def _windows(self, file: Path) -> Iterator[SeriesWindow]:
        if file.suffix.lower() == TS_SUFFIX:
            for number, values in enumerate(read_ts(file).values):
                try:
                    yield SeriesWindow(self._spec.preprocess(values), number, None)
                except SourceError as error:
                    self.unreadable += 1
                    _log.warning("skipped: %s, case %d: %s", file, number + 1, error)
            return
        spec = self._spec
        plan = read_plan(file, spec.channels)
        check_units(plan.channels, spec.channel_units, str(file))
        cutter = WindowCutter(spec.length, self._hop, spec.rate_hz, str(file))
        rows = windows = 0
        for row in iterate_rows(file, plan):
            rows += 1
            window = cutter.push(row.time_s, row.values)
            if window is not None:
                windows += 1
                yield window
        self.unreadable += sum(cutter.breaks.values())
        if not windows:
            raise SourceError(
                f"{file} has no window: {rows:,} rows with {sum(cutter.breaks.values())} breaks. Expected "
                f"{spec.length:,} consecutive rows or more."
            )
