"""Schema of a table: its target, and the kind, unit and categories of each column."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from kdedge_runtime.errors import DataError, UnreadableSample, UsageError
from kdedge_runtime.modalities.table_column import MISSING_CELLS, TableColumn, split_unit
from kdedge_runtime.util.files import atomic_write
from kdedge_runtime.util.table_rows import Row

__all__ = [
    "SCHEMA_FILE",
    "ColumnSchema",
    "TableSchema",
    "TableTask",
    "describe_schema",
    "find_column",
    "infer_schema",
    "is_missing",
    "number_of",
    "read_schema",
]

SCHEMA_FILE = "schema.json"
"""Name of the schema in a run folder."""
_VERSION = 1
Kind = Literal["numeric", "categorical", "ignored"]
TableTask = Literal["classify", "regression"]
_MOST_CATEGORIES = 64
"""Maximum number of categories of a column; rarer ones count as missing."""
_MOST_CLASSES = 20
"""Number of different numbers in the target above which it is a quantity, not a class."""
_ROWS_OF_AN_ID = 50
_NUMBER = TableColumn("number", "numeric")


@dataclass(frozen=True)
class ColumnSchema:
    """Column of the input."""

    name: str
    kind: Kind
    unit: str | None = None
    categories: tuple[str, ...] = ()
    low: float | None = None
    """Smallest number of the training rows; for information."""
    high: float | None = None
    missing: int = 0
    """Number of training rows without a value; for information."""

    @property
    def values(self) -> str:
        """Categories or range, for display."""
        if self.kind == "numeric":
            return "–" if self.low is None else f"{self.low:.6g} … {self.high:.6g}"
        shown = ", ".join(self.categories[:4])
        return shown + (f", … ({len(self.categories)})" if len(self.categories) > 4 else "")


@dataclass(frozen=True)
class TableSchema:
    """Columns of a table, and its target."""

    target: str
    """Name of the target column, with its unit."""
    task: TableTask
    labels: tuple[str, ...]
    """Classes in the order of the outputs; for a regression the target."""
    columns: tuple[ColumnSchema, ...]

    @property
    def used(self) -> tuple[ColumnSchema, ...]:
        """Columns that are not ignored."""
        return tuple(column for column in self.columns if column.kind != "ignored")

    def write(self, path: Path) -> None:
        """Write the schema atomically as JSON, in the form that `read_schema` takes."""
        content = {"schema": _VERSION} | asdict(self)
        atomic_write(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def read_schema(path: Path) -> TableSchema:
    """Read a schema file, as written by a run and edited by hand.

    Raises:
        UsageError: the file cannot be read, or is not a schema.
    """
    expected = f"Expected a file like {SCHEMA_FILE} of a run of kdedge train."
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["schema"] != _VERSION or values["task"] not in get_args(TableTask):
            raise ValueError("it is of another version, or its task is unknown")
        columns = tuple(_column(column) for column in values["columns"])
        labels = tuple(values["labels"])
        if not isinstance(values["target"], str) or not all(isinstance(label, str) for label in labels):
            raise TypeError("the target or a label is no text")
        return TableSchema(values["target"], values["task"], labels, columns)
    except OSError as error:
        raise UsageError(f"--schema {path} cannot be read: {error.strerror}. {expected}") from error
    except (KeyError, TypeError, ValueError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)[:120]
        raise UsageError(f"--schema {path} is not a schema: {reason}. {expected}") from error


def _column(values: dict[str, Any]) -> ColumnSchema:
    column = ColumnSchema(**values | {"categories": tuple(values.get("categories", ()))})
    if column.kind not in get_args(Kind) or not isinstance(column.name, str):
        raise ValueError(f"the column {column.name!r} has the kind {column.kind!r}")
    if column.kind == "categorical" and (
        not column.categories or len(set(column.categories)) != len(column.categories)
    ):
        raise ValueError(f"the categorical column {column.name!r} needs different categories")
    return column


def infer_schema(rows: Sequence[Row], target: str, task: TableTask | None, name: str) -> TableSchema:
    """Infer the schema from the training rows.

    A column is numeric if all its values are finite numbers. A column of texts that are nearly all different is
    ignored, since it names the rows.

    Args:
        rows: training rows with the same header, at least one.
        target: name of the target column, with or without its unit.
        task: task; None takes regression for a target with more than 20 different numbers or with fractions.
        name: name of the table in errors.

    Raises:
        UsageError: there is no such column.
        DataError: the target has no values, a single class, or texts in a regression.
    """
    titles = rows[0].titles
    place = find_column(titles, target, name)
    columns = tuple(
        _infer_column(title, [row.cells[at] for row in rows]) for at, title in enumerate(titles) if at != place
    )
    names = Counter(column.name for column in columns)
    if repeated := [each for each, count in names.items() if count > 1]:
        raise DataError(f"{name} has the column {repeated[0]!r} more than once. Expected different names.")
    cells = [cell.strip() for row in rows if (cell := row.cells[place]) is not None and not is_missing(cell)]
    title = titles[place].strip()
    if (task or _likely_task(cells)) == "regression":
        if any(number_of(cell) is None for cell in cells) or len(set(cells)) < 2:
            odd = next((cell for cell in cells if number_of(cell) is None), "a single value")
            raise DataError(f"The target {title!r} of {name} has {odd!r}. Expected different numbers for a regression.")
        return TableSchema(title, "regression", (title,), columns)
    labels = tuple(sorted(set(cells), key=lambda cell: (number_of(cell) is None, number_of(cell) or 0.0, cell)))
    if len(labels) < 2:
        found = f"a single value {labels[0]!r}" if labels else "no values"
        raise DataError(f"The target {title!r} of {name} has {found}. Expected two or more classes.")
    return TableSchema(title, "classify", labels, columns)


def describe_schema(schema: TableSchema) -> list[tuple[str, ...]]:
    """Return name, kind, unit, values and missing values of each column as texts, and of the target last."""
    rows = [
        (column.name, column.kind, column.unit or "", column.values, str(column.missing or ""))
        for column in schema.columns
    ]
    name, unit = split_unit(schema.target)
    return [*rows, (name, f"target: {schema.task}", unit or "", ", ".join(schema.labels[:6]), "")]


def find_column(titles: Sequence[str], wanted: str, name: str) -> int:
    """Return the place of a column by its name, with or without its unit.

    Raises:
        UsageError: there is no such column.
    """
    plain = split_unit(wanted)[0]
    found = [place for place, title in enumerate(titles) if wanted.strip() == title or plain == split_unit(title)[0]]
    if not found:
        raise UsageError(f"{name} has no column {wanted!r}. Expected one of {', '.join(titles[:12])} for --target.")
    return found[0]


def is_missing(cell: str | None) -> bool:
    """Return True for a cell without a value."""
    return cell is None or cell.strip().lower() in MISSING_CELLS


def number_of(cell: str) -> float | None:
    """Return the number in a cell, or None."""
    try:
        value = _NUMBER.value_of(cell)
    except UnreadableSample:
        return None
    return None if math.isnan(value) else value


def _likely_task(cells: Iterable[str]) -> TableTask:
    numbers = [number_of(cell) for cell in cells]
    whole = all(value is not None and value == int(value) for value in numbers)
    is_quantity = None not in numbers and (not whole or len(set(numbers)) > _MOST_CLASSES)
    return "regression" if is_quantity else "classify"


def _infer_column(title: str, cells: Sequence[str | None]) -> ColumnSchema:
    name, unit = split_unit(title)
    present = [cell.strip() for cell in cells if cell is not None and not is_missing(cell)]
    missing = len(cells) - len(present)
    numbers = [number_of(cell) for cell in present]
    known = [number for number in numbers if number is not None]
    if len(known) == len(present):
        low, high = (min(known), max(known)) if known else (None, None)
        return ColumnSchema(name, "numeric" if known else "ignored", unit, (), low, high, missing)
    counts = Counter(present)
    if len(counts) > max(_ROWS_OF_AN_ID, len(present) // 2):
        return ColumnSchema(name, "ignored", unit, (), missing=missing)
    kept = sorted(text for text, _ in counts.most_common(_MOST_CATEGORIES))
    return ColumnSchema(name, "categorical", unit, tuple(kept), missing=missing)
