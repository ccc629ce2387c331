"""Tables of recordings: CSV line by line, as sensors send it, and Parquet through pyarrow."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdedge_runtime.errors import DataError, SourceError
from kdedge_runtime.modalities.timeseries_names import unnamed_channels
from kdedge_runtime.sources.timeseries.columns import (
    ColumnPlan,
    is_header,
    parse_number,
    parse_time_s,
    plan_columns,
    split_line,
)
from kdedge_runtime.util.parquet_rows import parquet_rows, parquet_titles
from kdedge_runtime.util.table_rows import TABLE_SUFFIXES

__all__ = ["SeriesRow", "is_table_file", "iterate_rows", "read_plan", "row_of", "unnamed_plan"]


@dataclass(frozen=True)
class SeriesRow:
    """Row of a recording."""

    time_s: float | None
    values: tuple[float, ...]
    """Values of the channels; NaN where one is missing."""
    label: str | None = None


def is_table_file(path: Path) -> bool:
    """Return True for a CSV or Parquet file, by its name."""
    return path.suffix.lower() in TABLE_SUFFIXES and not path.name.startswith(".")


def read_plan(path: Path, wanted: Sequence[str] | None) -> ColumnPlan:
    """Find the columns of a file.

    Args:
        path: CSV or Parquet file.
        wanted: channel names of a model; None takes all channels.

    Raises:
        SourceError: the file cannot be read, or lacks a channel.
        MissingDependency: pyarrow is not installed.
    """
    if path.suffix.lower() == ".parquet":
        with _data_errors():
            return plan_columns(parquet_titles(path), wanted, str(path))
    with _opened(path) as lines:
        first = next((line for line in lines if line.strip()), None)
    if first is None:
        raise SourceError(f"{path} is empty. Expected a header and rows of numbers.")
    fields = split_line(first)
    if is_header(fields):
        return plan_columns(fields, wanted, str(path))
    return unnamed_plan(len(fields), wanted, str(path))


def unnamed_plan(width: int, wanted: Sequence[str] | None, name: str) -> ColumnPlan:
    """Return the plan of rows without a header: the channels in their order.

    Raises:
        SourceError: the number of columns differs from that of the channels.
    """
    if wanted is not None and width != len(wanted):
        raise SourceError(
            f"{name} has {width} columns without a header. Expected {len(wanted)}: {', '.join(wanted)}. With other "
            "columns, the first line names them."
        )
    return plan_columns(wanted or unnamed_channels(width), wanted, name)


def iterate_rows(path: Path, plan: ColumnPlan) -> Iterator[SeriesRow]:
    """Iterate over the rows of a file.

    Raises:
        SourceError: the file cannot be read, or a row has another number of columns or no number.
    """
    if path.suffix.lower() == ".parquet":
        yield from _parquet_rows(path, plan)
        return
    is_first = True
    with _opened(path) as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            fields = split_line(line)
            if not (is_first and is_header(fields)):
                yield row_of(fields, plan, f"{path}, line {number}")
            is_first = False


def row_of(fields: Sequence[str], plan: ColumnPlan, place: str) -> SeriesRow:
    """Convert the fields of a line to a row.

    Raises:
        SourceError: the line has another number of fields, or one is not a number.
    """
    if len(fields) != plan.width:
        raise SourceError(f"{place}: {len(fields)} columns. Expected {plan.width} as in the header.")
    try:
        time_s = None if plan.time_at is None else parse_time_s(fields[plan.time_at], plan.time_unit_s)
        values = tuple(parse_number(fields[at]) for at in plan.channel_at)
    except ValueError as error:
        raise SourceError(f"{place}: {error}. Expected numbers, and times in seconds or ISO 8601.") from error
    return SeriesRow(time_s, values, None if plan.label_at is None else fields[plan.label_at])


def _opened(path: Path) -> Any:
    try:
        return path.open(encoding="utf-8-sig", errors="replace", newline="")
    except OSError as error:
        raise SourceError(f"{path} cannot be read ({error.strerror}). Expected a CSV file.") from error


def _parquet_rows(path: Path, plan: ColumnPlan) -> Iterator[SeriesRow]:
    with _data_errors():
        for number, cells in enumerate(parquet_rows(path), start=1):
            yield row_of(["" if cell is None else cell for cell in cells], plan, f"{path}, row {number}")


@contextmanager
def _data_errors() -> Iterator[None]:
    """Raise errors of a table as those of a source."""
    try:
        yield
    except DataError as error:
        raise SourceError(str(error)) from error
