"""Schema of a table: its target, and the kind, unit and categories of each column."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, get_args

from kdedge_runtime.errors import DataError, UnreadableSample, UsageError
from kdedge_runtime.modalities.table_column import MISSING_CELLS, TableColumn, find_title, split_unit
from kdedge_runtime.util.files import atomic_write
from kdedge_runtime.util.table_rows import Row

__all__ = [
    "SCHEMA_FILE",
    "ColumnSchema",
    "TableSchema",
    "TableTask",
    "describe_schema",
    "expected_columns",
    "infer_columns",
    "find_column",
    "infer_schema",
    "infer_target",
    "input_titles",
    "is_missing",
    "number_of",
    "read_schema",
]

SCHEMA_FILE = "schema.json"
"""Name of the schema in a run folder."""
_VERSION = 1
Kind = Literal["numeric", "categorical", "ignored"]
TableTask = Literal["classify", "regression"]
_MAX_CATEGORIES = 64
"""Maximum number of categories of a column; rarer ones count as missing."""
_MAX_CLASSES = 20
"""Number of different numbers in the target above which it is a quantity, not a class."""
_MAX_NAMED = 24
"""Maximum number of columns in an error."""
_ROWS_OF_AN_ID = 50
_NUMERIC_SHARE = 0.95
"""Fraction of the values that are numbers, from which a column is numeric; rows with other values are skipped."""
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

    @property
    def sha256(self) -> str:
        """SHA-256 of the class order and the columns without their statistics, hexadecimal."""
        columns = [(column.name, column.kind, column.categories) for column in self.columns]
        return sha256(repr((self.labels, columns)).encode()).hexdigest()

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
        labels = _texts(values["labels"], "labels")
        if not isinstance(values["target"], str):
            raise TypeError("the target is not a string")
        if len(labels) != 1 if values["task"] == "regression" else len(labels) < 2:
            raise ValueError(f"{len(labels)} labels do not fit the task {values['task']}")
        names = [column.name for column in columns]
        if repeated := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"the column {repeated[0]!r} is there more than once")
        return TableSchema(values["target"], values["task"], labels, columns)
    except OSError as error:
        raise UsageError(f"--schema {path} cannot be read: {error.strerror}. {expected}") from error
    except (KeyError, TypeError, ValueError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)[:120]
        raise UsageError(f"--schema {path} is not a schema: {reason}. {expected}") from error


def _column(values: dict[str, Any]) -> ColumnSchema:
    categories = _texts(values.get("categories", []), f"categories of {values['name']!r}")
    column = ColumnSchema(**values | {"categories": categories})
    if column.kind not in get_args(Kind) or not isinstance(column.name, str):
        raise ValueError(f"the column {column.name!r} has the kind {column.kind!r}, not {' or '.join(get_args(Kind))}")
    if column.kind == "categorical" and not column.categories:
        raise ValueError(f"the categorical column {column.name!r} needs categories")
    return column


def _texts(values: object, name: str) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise TypeError(f"the {name} are not a list of strings")
    if len(set(values)) != len(values):
        raise ValueError(f"the {name} are not unique")
    return tuple(values)


def infer_schema(rows: Sequence[Row], target: str, task: TableTask | None, name: str) -> TableSchema:
    """Infer target and columns from the same rows; see `infer_target` and `infer_columns`."""
    return replace(infer_target(rows, target, task, name), columns=infer_columns(rows, target, name))


def infer_columns(rows: Sequence[Row], target: str, name: str) -> tuple[ColumnSchema, ...]:
    """Infer the columns of the input from the training rows.

    A column is numeric if 95% of its values are finite numbers. A column of texts that are nearly all different is
    ignored, since it names the rows.

    Args:
        rows: training rows with the same header, at least one.
        target: name of the target column, with or without its unit.
        name: name of the table in errors.

    Raises:
        UsageError: there is no such target.
        DataError: two columns differ only in their units.
    """
    titles = rows[0].titles
    place = find_column(titles, target, name)
    columns = tuple(
        _infer_column(title, [row.cells[at] for row in rows]) for at, title in enumerate(titles) if at != place
    )
    names = Counter(column.name for column in columns)
    if repeated := [each for each, count in names.items() if count > 1]:
        raise DataError(f"{name} has the column {repeated[0]!r} more than once. Expected different names.")
    return columns


def infer_target(rows: Sequence[Row], target: str, task: TableTask | None, name: str) -> TableSchema:
    """Infer the task and the labels, and return a schema without columns.

    Args:
        rows: rows of all splits that have the same header, at least one.
        target: name of the target column, with or without its unit.
        task: task; None takes regression for a target with more than 20 different numbers or with fractions.
        name: name of the table in errors.

    Raises:
        UsageError: there is no such column.
        DataError: the target has no values, a single class, or texts in a regression.
    """
    titles = rows[0].titles
    place = find_column(titles, target, name)
    cells = [cell.strip() for row in rows if (cell := row.cells[place]) is not None and not is_missing(cell)]
    title = titles[place].strip()
    if (task or _likely_task(cells)) == "regression":
        numbers = [number for cell in cells if (number := number_of(cell)) is not None]
        if len(numbers) < _NUMERIC_SHARE * len(cells) or len(set(numbers)) < 2:
            odd = next((cell for cell in cells if number_of(cell) is None), "a single value")
            raise DataError(f"The target {title!r} of {name} has {odd!r}. Expected different numbers for a regression.")
        return TableSchema(title, "regression", (title,), ())
    labels = tuple(sorted(set(cells), key=lambda cell: (number_of(cell) is None, number_of(cell) or 0.0, cell)))
    if len(labels) < 2:
        found = f"a single value {labels[0]!r}" if labels else "no values"
        raise DataError(f"The target {title!r} of {name} has {found}. Expected two or more classes.")
    return TableSchema(title, "classify", labels, ())


def describe_schema(schema: TableSchema, targets: Sequence[float]) -> list[tuple[str, ...]]:
    """Return name, kind, unit, values and missing values of each column as texts, and of the target last.

    Args:
        schema: schema of a table.
        targets: ground truth of the training rows, at least one.
    """
    rows = [
        (column.name, column.kind, column.unit or "", column.values, str(column.missing or ""))
        for column in schema.columns
    ]
    name, unit = split_unit(schema.target)
    is_class = schema.task == "classify"
    values = ", ".join(schema.labels[:6]) if is_class else f"{min(targets):.6g} … {max(targets):.6g}"
    return [*rows, (name, f"target: {schema.task}", unit or "", values, "")]


def find_column(titles: Sequence[str], wanted: str, name: str) -> int:
    """Return the place of a column by its name, with or without its unit.

    Raises:
        UsageError: there is no such column, several have the name, or it has another unit.
    """
    found = find_title(titles, *split_unit(wanted))
    if found is None:
        raise UsageError(f"{name} has no column {wanted!r} for --target. {expected_columns(titles, wanted)}")
    return found


def expected_columns(titles: Sequence[str], wanted: str) -> str:
    """Return the end of an error about a missing column: the most similar title, or all titles up to a number."""
    if similar := get_close_matches(wanted, titles, 1):
        return f"Did you mean {similar[0]}?"
    more = f" and {len(titles) - _MAX_NAMED} more" if len(titles) > _MAX_NAMED else ""
    return f"Expected one of {', '.join(titles[:_MAX_NAMED])}{more}."


def input_titles(titles: Sequence[str], target: str, name: str) -> tuple[str, ...]:
    """Return a header with an empty title at the place of the target; see `find_column`."""
    place = find_column(titles, target, name)
    return tuple("" if at == place else title for at, title in enumerate(titles))


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
    found = [number_of(cell) for cell in cells]
    numbers = [value for value in found if value is not None]
    whole = all(value == int(value) for value in numbers)
    is_quantity = bool(numbers) and (not whole or len(set(numbers)) > _MAX_CLASSES)
    return "regression" if is_quantity and len(numbers) >= _NUMERIC_SHARE * len(found) else "classify"


def _infer_column(title: str, cells: Sequence[str | None]) -> ColumnSchema:
    name, unit = split_unit(title)
    present = [cell.strip() for cell in cells if cell is not None and not is_missing(cell)]
    missing = len(cells) - len(present)
    numbers = [number_of(cell) for cell in present]
    known = [number for number in numbers if number is not None]
    if len(known) >= _NUMERIC_SHARE * len(present):
        low, high = (min(known), max(known)) if known else (None, None)
        return ColumnSchema(name, "numeric" if known else "ignored", unit, (), low, high, missing)
    counts = Counter(present)
    if len(counts) > max(_ROWS_OF_AN_ID, len(present) // 2):
        return ColumnSchema(name, "ignored", unit, (), missing=missing)
    kept = sorted(text for text, _ in counts.most_common(_MAX_CATEGORIES))
    return ColumnSchema(name, "categorical", unit, tuple(kept), missing=missing)
