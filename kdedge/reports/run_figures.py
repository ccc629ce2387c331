"""Metrics by which runs are compared, and their formatting."""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

from kdedge.pipelines.run_history import RunHistory
from kdedge.pipelines.seed_groups import SeedGroup, Spread, spread
from kdedge_export.html.text import plain_number
from kdedge_runtime.modalities.table_column import join_unit
from kdedge_runtime.tasks import TASKS

__all__ = [
    "ACCURACIES",
    "FIGURES",
    "Column",
    "columns_of",
    "common_unit",
    "figure_of",
    "group_figure",
    "format_figure",
    "format_spread",
    "heading",
]

FIGURES = {
    "top1": "top-1 %",
    "r2": "R²",
    "mae": "mean abs. error",
    "agreement": "agreement %",
    "map_pearson": "map Pearson",
}
"""Metric key (after `val_` in `metrics.jsonl`) to column heading; see `heading`."""
ACCURACIES = ("top1", "r2")
"""Metric keys of the accuracy of each task."""
_COEFFICIENTS = ("r2", "map_pearson")
"""Metric keys of figures without a unit."""


class Column(NamedTuple):
    """One metric of one epoch on one split."""

    side: Literal["val", "test"]
    which: Literal["best", "last"]
    """Epoch: the best by validation, or the last."""
    key: str

    @property
    def group(self) -> str:
        """Heading that groups the columns of one epoch."""
        return f"{'best by validation' if self.which == 'best' else 'last epoch'}{', test' * (self.side == 'test')}"


def columns_of(runs: Sequence[RunHistory]) -> list[Column]:
    """Return the columns for which at least one run has a value."""
    every = [Column(side, which, key) for side in ("val", "test") for which in ("best", "last") for key in FIGURES]
    return [column for column in every if any(figure_of(run, column) is not None for run in runs)]


def figure_of(run: RunHistory, column: Column) -> float | None:
    """Return the metric of a run, or None if it is missing or not finite."""
    epochs = run.test if column.side == "test" else {"best": run.best or {}, "last": run.last or {}}
    value = epochs.get(column.which, {}).get(f"{column.side}_{column.key}")
    return float(value) if value is not None and math.isfinite(value) else None


def group_figure(group: SeedGroup, column: Column) -> Spread | None:
    """Return mean and deviation of a group's metric, or None if a run lacks it."""
    return spread([figure_of(run, column) for run in group.runs])


def common_unit(runs: Sequence[RunHistory]) -> str | None:
    """Return the unit of the target if it is that of all regressions among the runs, else None."""
    units = {run.unit for run in runs if TASKS[run.record.task].has_values}
    return units.pop() if len(units) == 1 else None


def heading(key: str, unit: str | None) -> str:
    """Return the heading of a metric, such as `mean abs. error [kW]`.

    Args:
        key: key of `FIGURES`.
        unit: unit of the target, see `common_unit`; other metrics ignore it.
    """
    return join_unit(FIGURES[key], unit) if key == "mae" else FIGURES[key]


def format_figure(key: str, value: float | None) -> str:
    """Format a metric in the unit of its heading, with a typographic minus sign; empty for None."""
    if value is None:
        return ""
    if key == "mae":
        return plain_number(value)
    return (f"{value:.3f}" if key in _COEFFICIENTS else f"{100 * value:.1f}").replace("-", "−")


def format_spread(key: str, value: Spread | None) -> str:
    """Format a mean with its standard deviation (`57.3 ± 6.1`), or the mean alone for a single run."""
    if value is None:
        return ""
    mean = format_figure(key, value.mean)
    return mean if value.deviation is None else f"{mean} ± {format_figure(key, value.deviation)}"
