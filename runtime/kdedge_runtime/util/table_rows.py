"""Rows of tables from CSV files, Parquet files and JSON lines, as texts."""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdedge_runtime.errors import DataError, UnreadableSample
from kdedge_runtime.util.parquet_rows import cell_text, parquet_rows, parquet_titles

__all__ = ["TABLE_SUFFIXES", "Row", "read_csv_rows", "read_json_row", "read_table_rows", "row_of_values"]

TABLE_SUFFIXES = (".csv", ".tsv", ".parquet")
"""Suffixes of table files."""
_DELIMITERS = ",;\t"
_MAX_CELL_LENGTH = 1 << 20


@dataclass(frozen=True)
class Row:
    """Row of a table."""

    number: int
    """Position below the header, from 1."""
    titles: tuple[str, ...]
    cells: tuple[str | None, ...]
    """Text of each cell; None without a value. The number of cells of a damaged row differs from that of the titles."""
    is_object: bool = False
    """True for a JSON object, whose columns need not be those of the other rows."""


def read_table_rows(path: Path) -> Iterator[Row]:
    """Read the rows of a CSV or Parquet file, by its suffix.

    Raises:
        DataError: the file cannot be read, or its header is not usable.
        MissingDependency: the file needs pyarrow, which is not installed.
    """
    if path.suffix.lower() == ".parquet":
        yield from _read_parquet(path)
        return
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from read_csv_rows(file, str(path))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise DataError(f"{path} cannot be read: {reason}. Expected a CSV file with a header, in UTF-8.") from error


def read_csv_rows(lines: Iterable[str], name: str) -> Iterator[Row]:
    """Parse CSV lines with a header; the delimiter is the most frequent of comma, semicolon and tab in the header.

    Args:
        lines: lines of text.
        name: name of the source in errors.

    Raises:
        DataError: the header has empty or repeated names, or the lines are not CSV.
    """
    source = iter(lines)
    header = next(source, "")
    delimiter = max(_DELIMITERS, key=header.count)
    csv.field_size_limit(_MAX_CELL_LENGTH)
    try:
        titles = tuple(title.strip() for title in next(csv.reader([header], delimiter=delimiter), []))
        _check_titles(titles, name)
        number = 0
        for cells in csv.reader(source, delimiter=delimiter, strict=True):
            if cells:  # not an empty line
                number += 1
                yield Row(number, titles, tuple(cells))
    except csv.Error as error:
        raise DataError(f"{name} is not a CSV file: {error}. Expected a header and one line for each row.") from error


def read_json_row(line: str, number: int) -> Row:
    """Parse a JSON object with a value for each column: a text, a number, a boolean, or null.

    Args:
        line: one line of JSON.
        number: position of the row, from 1.

    Raises:
        UnreadableSample: the line is not such an object.
    """
    try:
        values = json.loads(line, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise UnreadableSample(
            f"Row {number} is not JSON ({error}). Expected an object for each line.", "no JSON"
        ) from (error)
    return row_of_values(values, number)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is repeated")
    return found


def row_of_values(values: Any, number: int) -> Row:
    """Return the row of a JSON object with a value for each column; see `read_json_row`.

    Raises:
        UnreadableSample: the value is not such an object.
    """
    if not isinstance(values, Mapping) or not all(
        isinstance(name, str) and not isinstance(value, list | dict) for name, value in values.items()
    ):
        raise UnreadableSample(
            f"Row {number} is not an object of values. Expected a text, a number, a boolean or null for each column.",
            "no object",
        )
    titles = tuple(title.strip() for title in values)
    if "" in titles or len(set(titles)) != len(titles):
        raise UnreadableSample(f"Row {number} has an empty or repeated name of a column.", "repeated names")
    return Row(number, titles, tuple(cell_text(value) for value in values.values()), is_object=True)


def _read_parquet(path: Path) -> Iterator[Row]:
    titles = parquet_titles(path)
    _check_titles(titles, str(path))
    for number, cells in enumerate(parquet_rows(path), start=1):
        yield Row(number, titles, cells)


def _check_titles(titles: tuple[str, ...], name: str) -> None:
    if not titles or "" in titles:
        raise DataError(f"{name} has no header, or a column without a name. Expected the names in the first line.")
    if repeated := sorted({title for title in titles if titles.count(title) > 1}):
        raise DataError(f"{name} has the column {repeated[0]!r} more than once. Expected different names.")
