"""Groups of rows that stay in one split: rows with the same value in a column, such as those of a customer."""

from collections.abc import Iterable, Sequence

from kdedge.data.dataset_index import DatasetIndex
from kdedge.data.grouping import GroupOf
from kdedge.data.row_samples import RowSample
from kdedge.data.splits import Split
from kdedge.data.table_schema import expected_columns, is_missing
from kdedge_runtime.errors import UsageError
from kdedge_runtime.modalities.table_column import canonical_text, find_title, split_unit
from kdedge_runtime.util.table_rows import Row

__all__ = ["group_of_row", "group_place", "groups_of_rows", "row_groups"]


def group_place(titles: Sequence[str], column: str, name: str) -> int:
    """Return the place of the column of `--group-by` in a table `name`.

    Raises:
        UsageError: there is no such column.
    """
    place = find_title(titles, *split_unit(column))
    if place is None:
        raise UsageError(
            f"{name} has no column {column!r} for --group-by, whose rows with the same value stay in one split. "
            f"{expected_columns(titles, column)}"
        )
    return place


def group_of_row(row: Row, place: int) -> str | None:
    """Return the value that names the group of a row, such as `1.0` for `1`; None if it is missing."""
    cell = row.cells[place]
    return None if cell is None or is_missing(cell) else canonical_text(cell.strip())


def groups_of_rows(samples: Iterable[RowSample], column: str, name: str) -> dict[str, str]:
    """Return the groups of the rows of a table `name` by the names of their samples, without rows that have none.

    Raises:
        UsageError: there is no such column.
    """
    groups: dict[str, str] = {}
    place = None
    for sample in samples:  # of one table, with one header
        place = group_place(sample.row.titles, column, name) if place is None else place
        group = group_of_row(sample.row, place)
        if group is not None:
            groups[sample.name] = group
    return groups


def row_groups(dataset: DatasetIndex, column: str) -> GroupOf:
    """Return the function of a row's name to the value of a column in it.

    Raises:
        UsageError: there is no such column.
    """
    groups: dict[str, str] = {}
    for split in (dataset.train, dataset.val, dataset.test or Split()):
        rows = [sample for sample in split.samples if isinstance(sample, RowSample)]
        groups |= groups_of_rows(rows, column, dataset.source)
    return groups.__getitem__
