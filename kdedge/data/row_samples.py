"""Rows of a table as samples."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from kdedge.data.samples import LoadedSample, StoredSample
from kdedge.data.table_schema import ColumnSchema, TableSchema, is_missing, number_of
from kdedge_runtime.errors import DataError
from kdedge_runtime.modalities import Sample
from kdedge_runtime.modalities.table_column import canonical_text, find_title, row_sample
from kdedge_runtime.util.table_rows import Row

__all__ = ["RowSample", "input_places", "row_digest", "row_fault"]


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
        return row_digest(self.row)

    def digest(self, values: Sample) -> bytes:
        """Return a SHA-256 of the input columns with numbers in one form; see `StoredSample.digest`."""
        places = _places(self.row.titles, self.schema)
        cells = [None if place is None else self.row.cells[place] for place in places]
        texts = [None if cell is None or is_missing(cell) else canonical_text(cell.strip()) for cell in cells]
        return hashlib.sha256(repr(texts).encode()).digest()

    def stamp(self) -> str:
        """Return a hash of the cells; see `StoredSample.stamp`."""
        return row_digest(self.row)


@lru_cache(maxsize=64)
def _places(titles: tuple[str, ...], schema: TableSchema) -> tuple[int | None, ...]:
    """Return the places of the input columns in a header."""
    return tuple(find_title(titles, column.name, column.unit) for column in schema.used)


def row_digest(row: Row) -> str:
    """Return the SHA-256 of the titles and cells of a row, hexadecimal."""
    return hashlib.sha256(repr((row.titles, row.cells)).encode()).hexdigest()


def input_places(titles: Sequence[str], schema: TableSchema, name: str) -> dict[ColumnSchema, int]:
    """Return the places of the input columns in the header of a table `name`.

    Raises:
        DataError: a column is missing.
    """
    found = zip(schema.used, _places(tuple(titles), schema), strict=True)
    places = {column: at for column, at in found if at is not None}
    if lost := sorted({column.name for column in set(schema.used) - places.keys()}):
        raise DataError(f"{name} has no column {', '.join(map(repr, lost[:5]))}, unlike the training rows.")
    return places


def row_fault(row: Row, places: Mapping[ColumnSchema, int]) -> str | None:
    """Return why a row cannot be used, such as `without a number in age`; None for a usable row."""
    if len(row.cells) != len(row.titles):
        return "with a different number of cells"
    for column, place in places.items():
        cell = row.cells[place]
        if column.kind == "numeric" and cell is not None and not is_missing(cell) and number_of(cell) is None:
            return f"without a number in {column.name}"
    return None
