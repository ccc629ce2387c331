"""Schema of a table on the terminal, before training."""

from collections.abc import Sequence

from rich.table import Table

from kdedge.cli.console import stderr_console
from kdedge.data.dataset_options import DatasetOptions

__all__ = ["print_schema"]

_COLUMNS = ("column", "kind", "unit", "values", "missing")


def print_schema(data: str, options: DatasetOptions) -> None:
    """Print the columns of a table to stderr; nothing for data without columns.

    Args:
        data: dataset location.
        options: options of reading the dataset.
    """
    from kdedge.modalities import modality_of_dataset

    rows = modality_of_dataset(data).describe(data, options)
    if rows:
        stderr_console().print(_table(rows))


def _table(rows: Sequence[Sequence[str]]) -> Table:
    table = Table()
    for name in _COLUMNS:
        table.add_column(name, justify="right" if name == "missing" else "left")
    for row in rows:
        table.add_row(*row)
    return table
