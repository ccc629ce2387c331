"""Index of a table: a file whose rows are divided by a hash, or a folder with `train`, `val` and `test` files.

```
DATA.csv                                  validation rows are divided by a hash of their cells, or of their group
DATA/train.csv  DATA/val.csv  DATA/test.csv   one of `val` and `test` may be missing
```

Files are CSV, TSV or Parquet.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import cast

from kdedge.data.dataset_index import DatasetIndex, fingerprint_of
from kdedge.data.dataset_options import DatasetOptions
from kdedge.data.grouping import group_split
from kdedge.data.row_samples import RowSample, input_places, row_digest, row_fault
from kdedge.data.skipped_samples import SkippedSample
from kdedge.data.splits import Split, hash_split
from kdedge.data.table_groups import group_of_row, group_place, groups_of_rows
from kdedge.data.table_schema import (
    ColumnSchema,
    TableSchema,
    TableTask,
    expected_columns,
    find_column,
    infer_columns,
    infer_target,
    input_titles,
    is_missing,
    number_of,
    read_schema,
)
from kdedge_runtime.errors import DataError, UsageError
from kdedge_runtime.modalities.table_column import find_title, split_unit
from kdedge_runtime.util.files import displayable
from kdedge_runtime.util.table_rows import TABLE_SUFFIXES, Row, read_table_rows

__all__ = ["has_column", "index_table", "is_table", "rows_of_table", "schema_of"]

_log = logging.getLogger(__name__)
_VAL_FRACTION, _SEED = 0.2, 0
_SIDES = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test",)}


def is_table(data: str) -> bool:
    """Return True for a table file, or a folder with a table of training rows."""
    path = Path(data)
    return (path.suffix.lower() in TABLE_SUFFIXES and not path.is_dir()) or "train" in _side_files(path)


def index_table(data: str, options: DatasetOptions) -> DatasetIndex:
    """Read a table, and infer its schema from the training rows or read it from a file.

    Rows without a target or a group, or with a cell that is not a number in a numeric column, are reported as skipped.
    The group column is not an input of an inferred schema.

    Raises:
        UsageError: there is no target, no such column, or the schema does not fit.
        DataError: the table cannot be read, has no rows, or its target cannot be learned.
    """
    path = Path(data)
    files = _side_files(path) if path.is_dir() else {"train": path}
    if not all(file.is_file() for file in files.values()):
        raise DataError(f"There is no table {path}. Expected a file with a header (*{', *'.join(TABLE_SUFFIXES)}).")
    tables = {side: rows_of_table(file) for side, file in files.items()}
    schema = _schema(tables["train"], options, path)
    group_by = options.group_by
    held_out = frozenset[int]() if "val" in files else _held_out(tables["train"], schema, group_by, path)
    if options.schema is None:
        training = [row for row in _sound(tables["train"], path) if row.number not in held_out]
        columns = infer_columns(training, schema.target, str(path))
        schema = replace(schema, columns=columns if group_by is None else _without(columns, group_by))
        if not schema.used:
            raise DataError(f"{path} has no column to learn from besides the target and the group. Expected others.")
        _warn_about_texts(schema, training, str(path), group_by)
    _warn_about_case(schema.labels if schema.task == "classify" else (), str(path))
    skipped: list[SkippedSample] = []
    splits = {side: _split(files[side], rows, schema, group_by, skipped) for side, rows in tables.items()}
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
                repr((schema.target, schema.task, sorted(schema.labels))),
                *(f"{side}\0{row.number}\0{row_digest(row)}" for side in tables for row in tables[side]),
            ]
        ),
        modality="tabular",
        task=schema.task,
        skipped=tuple(skipped),
        target=schema.target,
        schema=schema.sha256,
    )


def has_column(data: str, column: str) -> bool:
    """Return True unless the training rows of a table lack a column."""
    path = Path(data)
    file = _side_files(path).get("train") if path.is_dir() else path
    if file is None or not file.is_file():
        return True  # `index_table` reports it
    first = next(iter(read_table_rows(file)), None)
    return first is None or find_title(first.titles, *split_unit(column)) is not None


def schema_of(split: Split) -> TableSchema:
    """Return the schema of the table that rows are from."""
    sample = split.samples[0]
    assert isinstance(sample, RowSample)
    return sample.schema


def _without(columns: Sequence[ColumnSchema], group_by: str) -> tuple[ColumnSchema, ...]:
    """Return the columns without the one of the groups as an input."""
    name, _ = split_unit(group_by)
    return tuple(replace(column, kind="ignored") if column.name == name else column for column in columns)


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


def rows_of_table(file: Path) -> list[Row]:
    """Read all rows of a table.

    Raises:
        DataError: the table cannot be read, or has no rows.
    """
    rows = list(read_table_rows(file))
    if not rows:
        raise DataError(f"{file} has no rows below its header.")
    return rows


def _schema(rows: Sequence[Row], options: DatasetOptions, path: Path) -> TableSchema:
    task = cast(TableTask | None, options.task)
    if options.schema is None:
        if options.target is None:
            raise UsageError(
                f"{path} is a table, so its target column must be given: --target COLUMN. "
                f"{expected_columns(rows[0].titles, '')}"
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
            f"All rows of {path} have a different number of cells from the header, such as {found}. Expected "
            f"{expected}."
        )
    return sound


def _held_out(rows: Sequence[Row], schema: TableSchema, group_by: str | None, path: Path) -> frozenset[int]:
    """Return the numbers of the rows for validation, by a hash of their cells or of their groups."""
    place = find_column(rows[0].titles, schema.target, str(path))
    known = [
        (RowSample(f"{displayable(path.name)}:{row.number}", row, schema), target)
        for row in _sound(rows, path)
        if (target := _target(row.cells[place], schema)) is not None
    ]
    groups: dict[str, str] = {}
    if group_by is not None:
        groups = groups_of_rows((sample for sample, _ in known), group_by, str(path))
        known = [(sample, target) for sample, target in known if sample.name in groups]
    every = Split(tuple(sample for sample, _ in known), tuple(target for _, target in known))
    if group_by is None:
        _, val = hash_split(every, val_fraction=_VAL_FRACTION, seed=_SEED)
    else:
        _, val = group_split(every, groups.__getitem__, val_fraction=_VAL_FRACTION, seed=_SEED)
    return frozenset(sample.row.number for sample in val.samples if isinstance(sample, RowSample))


def _warn_about_texts(schema: TableSchema, rows: Sequence[Row], name: str, group_by: str | None) -> None:
    """Warn about columns that are ignored since their texts are nearly all different."""
    intended = None if group_by is None else split_unit(group_by)[0]
    for column in schema.columns:
        if column.kind == "ignored" and column.name != intended and column.missing < len(rows):
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


@cache
def _warn_about_case(labels: tuple[str, ...], table: str) -> None:
    """Warn about classes that differ only in case, which are likely one class."""
    alike = [label for label in labels if sum(each.casefold() == label.casefold() for each in labels) > 1]
    if alike:
        _log.warning(
            "The classes %s of %s differ in case only, and are different classes. Write them alike if they are one.",
            ", ".join(map(repr, alike)),
            table,
        )


def _split(
    file: Path, rows: Sequence[Row], schema: TableSchema, group_by: str | None, skipped: list[SkippedSample]
) -> Split:
    """Return the usable rows with their targets, and add the others to `skipped`."""
    place = find_column(rows[0].titles, schema.target, str(file))
    places = input_places(input_titles(rows[0].titles, schema.target, str(file)), schema, str(file))
    group_at = None if group_by is None else group_place(rows[0].titles, group_by, str(file))
    samples: list[RowSample] = []
    targets: list[int | float] = []
    digits = len(str(len(rows)))
    for row in rows:
        name = f"{displayable(file.name)}:{row.number:0{digits}}"
        fault = row_fault(row, places)
        if fault is None and group_at is not None and group_of_row(row, group_at) is None:
            fault = f"without a value in {group_by}"
        target = None if fault is not None else _target(row.cells[place], schema)
        if target is None:
            skipped.append(SkippedSample(name, fault or _target_fault(row.cells[place], schema)))
            continue
        samples.append(RowSample(name, row, schema))
        targets.append(target)
    return Split(tuple(samples), tuple(targets))


def _target_fault(cell: str | None, schema: TableSchema) -> str:
    """Return the reason for which `_target` is None."""
    if cell is None or is_missing(cell):
        return "without a target"
    return "with a target that is not a number" if schema.task == "regression" else f"of the unknown class {cell!r}"


def _target(cell: str | None, schema: TableSchema) -> int | float | None:
    if cell is None or is_missing(cell):
        return None
    if schema.task == "regression":
        return number_of(cell)
    return schema.labels.index(cell.strip()) if cell.strip() in schema.labels else None
