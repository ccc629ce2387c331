"""Rows of tables without a target, which a student learns from its teacher alone."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from kdedge.data.readers.table_files import rows_of_table
from kdedge.data.row_samples import RowSample, input_places, row_fault
from kdedge.data.skipped_samples import SkippedSample
from kdedge.data.table_schema import ColumnSchema, TableSchema
from kdedge.data.unlabeled import UnlabeledSource
from kdedge_runtime.errors import DataError
from kdedge_runtime.util.files import displayable
from kdedge_runtime.util.table_rows import TABLE_SUFFIXES, Row

__all__ = ["list_unlabeled_rows"]


def list_unlabeled_rows(location: Path, schema: TableSchema) -> list[UnlabeledSource]:
    """List the rows of a table. A column of the target is not used.

    Args:
        location: table file.
        schema: schema of the labeled rows, whose input columns must all be present.

    Raises:
        DataError: there is no table, or it lacks an input column.
        UsageError: a column has another unit.
    """
    if not location.is_file() or location.suffix.lower() not in TABLE_SUFFIXES:
        raise DataError(f"{location} is not a table. Expected a file (*{', *'.join(TABLE_SUFFIXES)}).")
    rows = rows_of_table(location)
    places = input_places(rows[0].titles, schema, str(location))
    samples = _samples(location, rows, schema, places)
    return [UnlabeledSource(str(location.resolve()), samples, len(rows), is_footage=False)]


def _samples(
    file: Path, rows: list[Row], schema: TableSchema, places: Mapping[ColumnSchema, int]
) -> Iterator[RowSample | SkippedSample]:
    digits = len(str(len(rows)))
    for row in rows:
        name = f"{displayable(file.resolve().parent.name)}/{displayable(file.name)}:{row.number:0{digits}}"
        fault = row_fault(row, places)
        yield RowSample(name, row, schema) if fault is None else SkippedSample(name, fault)
