"""Rows that are posted to the live view; the run predicts them."""

import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from kdedge_runtime.errors import SourceError, UnreadableSample, UsageError
from kdedge_runtime.modalities.table_column import row_sample
from kdedge_runtime.sources.source import Frame
from kdedge_runtime.sources.tabular.unseen_categories import UnseenCategories
from kdedge_runtime.util.table_rows import row_of_values

if TYPE_CHECKING:
    from kdedge_runtime.modalities.tabular import TabularInput

__all__ = ["PostedRows"]

_MAX_WAITING = 1000
"""Maximum number of rows that wait for the run; further ones are rejected."""
_STOP_CHECK_S = 0.2


class PostedRows:
    """Rows from other programs, as JSON objects; a `PostedSource`."""

    live = False
    fps: float | None = None
    reconnects = 0
    expected: int | None = None
    name = "http"
    paths: tuple[Path, ...] = ()

    def __init__(self, spec: "TabularInput", stop: threading.Event | None = None) -> None:
        """Create a source.

        Args:
            spec: input of the model, which the rows are checked against.
            stop: event that ends the source.
        """
        self.dropped = self.unreadable = 0
        self._spec, self._stop = spec, stop or threading.Event()
        self._changed = threading.Condition()
        self._waiting: dict[int, Frame] = {}
        self._count = 0
        self._unseen = UnseenCategories()
        self._counting = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        pass

    def __iter__(self) -> Iterator[Frame]:
        while not self._stop.is_set():
            with self._changed:
                if not self._waiting:
                    self._changed.wait(_STOP_CHECK_S)
                    continue
                frame = self._waiting.pop(next(iter(self._waiting)))
            yield frame

    @property
    def waiting(self) -> int:
        """Number of rows that wait for the run."""
        return len(self._waiting)

    def read(self, values: Mapping[str, Any]) -> Frame:
        """Check a row, and return its frame.

        Args:
            values: value of each column: a text, a number, a boolean or None.

        Raises:
            UsageError: the row lacks a column, or has a value that cannot be read.
        """
        with self._counting:
            self._count += 1
            number = self._count
        try:
            row = row_of_values(values, number)
            sample = row_sample(row.titles, row.cells)
            self._spec.preprocess(sample)
        except (UnreadableSample, UsageError) as error:
            with self._counting:
                self.unreadable += 1
            raise UsageError(str(error)) from error
        with self._counting:
            self._unseen.warn(self._spec.unseen(sample))
        return Frame(number - 1, sample, time.monotonic(), f"row {number}")

    def add(self, frame: Frame) -> None:
        """Add a row to the run.

        Raises:
            SourceError: too many rows wait for the run.
        """
        with self._changed:
            if len(self._waiting) >= _MAX_WAITING:
                self.dropped += 1
                raise SourceError(f"{_MAX_WAITING:,} rows wait for a prediction. Post fewer at a time.")
            self._waiting[frame.index] = frame
            self._changed.notify()

    def withdraw(self, frame: Frame) -> None:
        """Remove a row that still waits; it counts as dropped."""
        with self._changed:
            if self._waiting.pop(frame.index, None) is not None:
                self.dropped += 1
