"""Schema of a table on the terminal, before training."""

from rich.table import Table

from kdedge.data.dataset_options import DatasetOptions

__all__ = ["schema_table"]

_COLUMNS = ("column", "kind", "unit", "values", "missing")


def schema_table(data: str, options: DatasetOptions) -> Table | None:
    """Return the columns of a dataset with their kinds, units and values; None for data without columns.

    Args:
        data: dataset location.
        options: options of reading the dataset.
    """
    from kdedge.modalities import modality_of_dataset

    rows = modality_of_dataset(data).describe(data, options)
    if not rows:
        return None
    table = Table()
    for name in _COLUMNS:
        table.add_column(name, justify="right" if name == "missing" else "left")
    for row in rows:
        table.add_row(*row)
    return table
