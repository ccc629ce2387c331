"""Rows as a source: each one is checked against the columns of the model before it is predicted."""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from kdedge_runtime.errors import DataError, UnreadableSample, UsageError
from kdedge_runtime.modalities.table_column import row_sample
from kdedge_runtime.sources.source import Frame
from kdedge_runtime.sources.tabular.unseen_categories import UnseenCategories
from kdedge_runtime.util.table_rows import Row, read_csv_rows, read_json_row

if TYPE_CHECKING:
    from kdedge_runtime.modalities.tabular import TabularInput

__all__ = ["RowSource", "read_lines"]

_log = logging.getLogger(__name__)
_MAX_LACKING = 20
"""Number of objects without a column at the start of a source, above which it is an error."""
_MAX_LOGGED = 100
"""Number of different objects without a column that are logged; their names have no end."""


class RowSource:
    """Rows of a table in their order.

    A row with a cell that is not a number, or with another number of cells, is logged, counted and skipped. A category
    that the model does not have is logged once, and counts as a missing value. A column that the header lacks is an
    error. A JSON object that lacks a column is skipped like a damaged row, and logged for the first of its kind. It is
    an error if no row can be read, at the latest after 20 such objects.
    """

    live = False
    fps: float | None = None
    dropped = 0
    reconnects = 0
    expected: int | None = None

    def __init__(
        self,
        spec: "TabularInput",
        name: str,
        rows: Callable[[], Iterator[Row | UnreadableSample]],
        *,
        paths: tuple[Path, ...] = (),
        stop: threading.Event | None = None,
    ) -> None:
        """Create a source; it is opened when it is iterated.

        Args:
            spec: input of the model.
            name: name of the source.
            rows: function that returns the rows, with an error for each damaged one.
            paths: files that the source reads.
            stop: event that ends the source.
        """
        self.name, self.paths = name, paths
        self.unreadable = 0
        self._spec, self._rows, self._stop = spec, rows, stop or threading.Event()
        self._unseen = UnseenCategories()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        pass

    def __iter__(self) -> Iterator[Frame]:
        lacking: UsageError | None = None
        logged: set[str] = set()
        skipped, is_read = 0, False
        for index, row in enumerate(self._rows()):
            if self._stop.is_set():
                return
            try:
                if isinstance(row, UnreadableSample):
                    raise row
                sample = row_sample(row.titles, row.cells)
                self._spec.preprocess(sample)
            except UnreadableSample as error:
                self.unreadable += 1
                _log.warning("row %d is skipped: %s", index + 1, error)
                continue
            except UsageError as error:
                if isinstance(row, Row) and not row.is_object:
                    raise
                self.unreadable += 1
                skipped, lacking = skipped + 1, lacking or error
                if str(error) not in logged and len(logged) < _MAX_LOGGED:
                    logged.add(str(error))
                    _log.warning("row %d is skipped, and others like it: %s", index + 1, error)
                if not is_read and skipped > _MAX_LACKING:
                    raise
                continue
            is_read = True
            self._unseen.warn(self._spec.unseen(sample))
            yield Frame(index, sample, time.monotonic(), f"row {index + 1}")
        if lacking is not None and not is_read:
            raise lacking


def read_lines(lines: Iterable[str], name: str) -> Iterator[Row | UnreadableSample]:
    """Parse lines as they arrive: JSON objects if the first line is one, else CSV with a header.

    Args:
        lines: lines of text; empty ones are ignored.
        name: name of the source in errors.

    Raises:
        DataError: the header is not usable, or the lines are not UTF-8.
    """
    source = (line for line in _decoded(lines, name) if line.strip())
    first = next(source, None)
    if first is None:
        return
    everything = chain([first.removeprefix("\ufeff")], source)
    if not first.lstrip("\ufeff \t").startswith("{"):
        yield from read_csv_rows(everything, name)
        return
    for number, line in enumerate(everything, 1):
        try:
            yield read_json_row(line, number)
        except UnreadableSample as error:
            yield error


def _decoded(lines: Iterable[str], name: str) -> Iterator[str]:
    try:
        yield from lines
    except UnicodeDecodeError as error:
        raise DataError(f"{name} is not UTF-8 text: {error.reason}. Expected rows in UTF-8.") from error
