"""Constants of the encoding of columns, fitted on the training rows."""

import logging
from collections.abc import Sequence

import numpy as np

from kdedge.data.table_schema import ColumnSchema
from kdedge_runtime.errors import UnreadableSample
from kdedge_runtime.modalities.table_column import ColumnKind, TableColumn

__all__ = ["INTERVALS", "fit_column"]

INTERVALS = 16
"""Maximum number of intervals of a numeric column (.github/docs/benchmarks/tabular.md)."""

_KEPT_SHARE = 0.9
"""Fraction of the different numbers of a column that float32 must keep."""
_log = logging.getLogger(__name__)


def fit_column(schema: ColumnSchema, cells: Sequence[str | None]) -> TableColumn:
    """Fit the edges of intervals, the frequencies of categories, and the mean of the encoding.

    Args:
        schema: name, kind, unit and categories of the column, which is not ignored.
        cells: values of the training rows; those that cannot be read are left out.
    """
    kind: ColumnKind = "numeric" if schema.kind == "numeric" else "categorical"
    plain = TableColumn(schema.name, kind, schema.unit, categories=schema.categories)
    values = np.array([value for cell in cells if (value := _value(plain, cell)) is not None])
    if kind == "categorical":
        known = values[values >= 0].astype(np.int64)
        counts = np.bincount(known, minlength=len(plain.categories))
        reference = counts / max(1, len(known))
        return _with(plain, (), reference, 1 - len(known) / max(1, len(values)))
    known = values[np.isfinite(values)]
    distinct, kept = len(np.unique(known)), len(np.unique(known.astype(np.float32)))
    if kept < _KEPT_SHARE * distinct:
        _log.warning(
            "The %d different numbers of the column %r become %d in float32. Subtract a constant from them.",
            distinct,
            schema.name,
            kept,
        )
    edges = np.unique(np.quantile(known, np.linspace(0, 1, INTERVALS + 1))) if len(known) else np.zeros(0)
    edges = np.unique(edges.astype(np.float32)).astype(np.float64)  # as the graph compares them
    shares = np.clip((known[:, None] - edges[:-1]) / np.maximum(np.diff(edges), 1e-30), 0, 1)
    reference = shares.mean(axis=0) if len(known) else np.zeros(0)
    return _with(plain, tuple(edges.tolist()), reference, 1 - len(known) / max(1, len(values)))


def _with(column: TableColumn, edges: tuple[float, ...], reference: np.ndarray, missing: float) -> TableColumn:
    means = tuple(round(float(mean), 7) for mean in reference)
    return TableColumn(column.name, column.kind, column.unit, edges, column.categories, means, round(missing, 7))


def _value(column: TableColumn, cell: str | None) -> float | None:
    try:
        return column.value_of(cell)
    except UnreadableSample:
        return None
