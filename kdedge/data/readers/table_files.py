"""Index of a table: a file whose rows are divided by a hash, or a folder with `train`, `val` and `test` files.

```
DATA.csv                                  validation rows are divided by a hash of their cells
DATA/train.csv  DATA/val.csv  DATA/test.csv   one of `val` and `test` may be missing
```

Files are CSV, TSV or Parquet.
"""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import cast

from kdedge.data.dataset_index import DatasetIndex, fingerprint_of
from kdedge.data.dataset_options import DatasetOptions
from kdedge.data.samples import LoadedSample, StoredSample
from kdedge.data.splits import Split, hashed_halves
from kdedge.data.table_schema import (
    ColumnSchema,
    TableSchema,
    TableTask,
    find_column,
    infer_columns,
    infer_target,
    input_titles,
    is_missing,
    number_of,
    read_schema,
)
from kdedge.data.unreadable_files import SkippedFile
from kdedge_runtime.errors import DataError, UsageError
from kdedge_runtime.modalities.table_column import find_title, row_sample, split_unit
from kdedge_runtime.util.files import displayable
from kdedge_runtime.util.table_rows import TABLE_SUFFIXES, Row, read_table_rows

__all__ = ["RowSample", "index_table", "is_table", "schema_of"]

_log = logging.getLogger(__name__)
_VAL_FRACTION, _SEED = 0.2, 0
_SIDES = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test",)}


@dataclass(frozen=True, slots=True)
class RowSample(StoredSample):
    """Row of a table, held in memory."""

    row: Row
    schema: TableSchema
    """Schema of the table, shared by its rows."""

    def read(self) -> LoadedSample:
        """Return the row by column name; see `row_sample`."""
        return LoadedSample(row_sample(self.row.titles, self.row.cells))

    @property
    def key(self) -> str:
        """Hash of the cells, so that identical rows stay in one split and the others do not move when rows are added.

        See `StoredSample.key`.
        """
        return _digest(self.row)

    def stamp(self) -> str:
        """Return a hash of the cells; see `StoredSample.stamp`."""
        return _digest(self.row)


def is_table(data: str) -> bool:
    """Return True for a table file, or a folder with a table of training rows."""
    path = Path(data)
    return (path.suffix.lower() in TABLE_SUFFIXES and not path.is_dir()) or "train" in _side_files(path)


def index_table(data: str, options: DatasetOptions) -> DatasetIndex:
    """Read a table, and infer its schema from the training rows or read it from a file.

    Rows without a target, or with a cell that is not a number in a numeric column, are reported as skipped.

    Raises:
        UsageError: there is no target, no such column, or the schema does not fit.
        DataError: the table cannot be read, has no rows, or its target cannot be learned.
    """
    path = Path(data)
    files = _side_files(path) if path.is_dir() else {"train": path}
    if not all(file.is_file() for file in files.values()):
        raise DataError(f"There is no table {path}. Expected a file with a header (*{', *'.join(TABLE_SUFFIXES)}).")
    tables = {side: _rows(file) for side, file in files.items()}
    schema = _schema(tables["train"], options, path)
    held_out = frozenset[int]() if "val" in files else _held_out(tables["train"], schema, path)
    if options.schema is None:
        training = [row for row in _sound(tables["train"], path) if row.number not in held_out]
        schema = replace(schema, columns=infer_columns(training, schema.target, str(path)))
        _warn_about_texts(schema, training, str(path))
    skipped: list[SkippedFile] = []
    splits = {side: _split(files[side], rows, schema, skipped) for side, rows in tables.items()}
    if held_out:
        both = splits["train"]
        apart = [each.row.number in held_out for each in both.samples if isinstance(each, RowSample)]
        splits["train"] = both.take(place for place, is_val in enumerate(apart) if not is_val)
        splits["val"] = both.take(place for place, is_val in enumerate(apart) if is_val)
    if not len(splits["train"]):
        raise DataError(f"No row of {files['train']} can be used: {skipped[0].reason} ({skipped[0].name}).")
    return DatasetIndex(
        source=str(path.resolve()),
        labels=schema.labels,
        train=splits["train"],
        val=splits.get("val", Split()),
        test=splits.get("test"),
        split="folders" if "val" in files else "hashed",
        fingerprint=fingerprint_of(
            [
                repr((schema.target, schema.task, schema.labels)),
                *(repr((column.name, column.kind, column.categories)) for column in schema.columns),
                *(f"{side}\0{row.number}\0{_digest(row)}" for side in tables for row in tables[side]),
            ]
        ),
        modality="tabular",
        task=schema.task,
        skipped=tuple(skipped),
    )


def schema_of(split: Split) -> TableSchema:
    """Return the schema of the table that rows are from."""
    sample = split.samples[0]
    assert isinstance(sample, RowSample)
    return sample.schema


def _side_files(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        return {}
    tables = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in TABLE_SUFFIXES]
    found = {side: [path for path in tables if path.stem.lower() in names] for side, names in _SIDES.items()}
    return {side: _only(paths) for side, paths in found.items() if paths}


def _only(paths: Sequence[Path]) -> Path:
    if len(paths) > 1:
        raise DataError(f"{paths[0]} and {paths[1].name} are for the same split. Expected one table for each split.")
    return paths[0]


def _rows(file: Path) -> list[Row]:
    rows = list(read_table_rows(file))
    if not rows:
        raise DataError(f"{file} has no rows below its header.")
    return rows


def _schema(rows: Sequence[Row], options: DatasetOptions, path: Path) -> TableSchema:
    task = cast(TableTask | None, options.task)
    if options.schema is None:
        if options.target is None:
            raise UsageError(
                f"{path} is a table, so its target column must be given: --target COLUMN, one of "
                f"{', '.join(rows[0].titles[:12])}."
            )
        return infer_target(_sound(rows, path), options.target, task, str(path))
    schema = read_schema(Path(options.schema))
    if options.target is not None and split_unit(options.target)[0] != split_unit(schema.target)[0]:
        raise UsageError(f"--target is {options.target}, but --schema has {schema.target}. Remove --target.")
    if task not in (None, schema.task):
        raise UsageError(f"--task is {task}, but --schema has {schema.task}. Remove --task.")
    place = find_column(rows[0].titles, schema.target, str(path))
    there = {split_unit(title)[0] for at, title in enumerate(rows[0].titles) if at != place}
    known, used = {column.name for column in schema.columns}, {column.name for column in schema.used}
    if odd := sorted((there - known) | (used - there)):
        raise UsageError(
            f"The columns of {path} and --schema {options.schema} differ: {', '.join(map(repr, odd[:5]))}. Add them to "
            'the schema with the kind "ignored", or correct their names.'
        )
    if not schema.used:
        raise UsageError(f"--schema {options.schema} ignores all columns. Expected one or more to learn from.")
    return schema


def _sound(rows: Sequence[Row], path: Path) -> list[Row]:
    """Return the rows with a cell for each column."""
    sound = [row for row in rows if len(row.cells) == len(row.titles)]
    if not sound:
        found, expected = len(rows[0].cells), len(rows[0].titles)
        raise DataError(
            f"All rows of {path} have another number of cells than its header, such as {found}. Expected {expected}."
        )
    return sound


def _held_out(rows: Sequence[Row], schema: TableSchema, path: Path) -> frozenset[int]:
    """Return the numbers of the rows for validation, by a hash of their cells."""
    place = find_column(rows[0].titles, schema.target, str(path))
    known = [(row, target) for row in _sound(rows, path) if (target := _target(row.cells[place], schema)) is not None]
    every = Split(tuple(RowSample("", row, schema) for row, _ in known), tuple(target for _, target in known))
    _, val = hashed_halves(every, val_fraction=_VAL_FRACTION, seed=_SEED)
    return frozenset(sample.row.number for sample in val.samples if isinstance(sample, RowSample))


def _warn_about_texts(schema: TableSchema, rows: Sequence[Row], name: str) -> None:
    """Warn about columns that are ignored since their texts are nearly all different."""
    for column in schema.columns:
        if column.kind == "ignored" and column.missing < len(rows):
            place = find_title(input_titles(rows[0].titles, schema.target, name), column.name, column.unit)
            assert place is not None
            example = next(cell for row in rows if (cell := row.cells[place]) and number_of(cell) is None)
            _warn_once(name, column.name, example[:40])


@cache
def _warn_once(table: str, column: str, example: str) -> None:
    _log.warning(
        "The column %r of %s is ignored: its values are texts that are nearly all different, such as %r. Numbers must "
        "be written without units and separators.",
        column,
        table,
        example,
    )


def _split(file: Path, rows: Sequence[Row], schema: TableSchema, skipped: list[SkippedFile]) -> Split:
    """Return the usable rows with their targets, and add the others to `skipped`."""
    place = find_column(rows[0].titles, schema.target, str(file))
    titles = input_titles(rows[0].titles, schema.target, str(file))
    found = {column: find_title(titles, column.name, column.unit) for column in schema.used}
    places = {column: at for column, at in found.items() if at is not None}
    if lost := sorted({column.name for column in found.keys() - places.keys()}):
        raise DataError(f"{file} has no column {', '.join(map(repr, lost[:5]))}, unlike the training rows.")
    samples: list[RowSample] = []
    targets: list[int | float] = []
    digits = len(str(len(rows)))
    for row in rows:
        name = f"{displayable(file.name)}:{row.number:0{digits}}"
        fault = _fault(row, places)
        target = None if fault is not None else _target(row.cells[place], schema)
        if target is None:
            skipped.append(SkippedFile(name, fault or "without a known target"))
            continue
        samples.append(RowSample(name, row, schema))
        targets.append(target)
    return Split(tuple(samples), tuple(targets))


def _fault(row: Row, places: dict[ColumnSchema, int]) -> str | None:
    if len(row.cells) != len(row.titles):
        return "with another number of cells"
    for column, place in places.items():
        cell = row.cells[place]
        if column.kind == "numeric" and cell is not None and not is_missing(cell) and number_of(cell) is None:
            return f"without a number in {column.name}"
    return None


def _target(cell: str | None, schema: TableSchema) -> int | float | None:
    if cell is None or is_missing(cell):
        return None
    if schema.task == "regression":
        return number_of(cell)
    return schema.labels.index(cell.strip()) if cell.strip() in schema.labels else None


def _digest(row: Row) -> str:
    return hashlib.sha256(repr((row.titles, row.cells)).encode()).hexdigest()
