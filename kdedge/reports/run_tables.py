"""Tables of runs and their groups."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from kdedge.pipelines.run_comparison import RunComparison
from kdedge.reports.run_figures import (
    Column,
    columns_of,
    common_unit,
    figure_of,
    format_figure,
    format_spread,
    group_figure,
    heading,
)
from kdedge.reports.run_settings import RunSettings, duration
from kdedge.reports.run_styles import RunStyle
from kdedge_export.html.text import NONE

__all__ = ["RunRow", "RunTable", "groups_table", "runs_table"]


@dataclass(frozen=True)
class RunRow:
    """One run, or one group of runs."""

    name: str
    style: RunStyle
    cells: tuple[str, ...]
    settings: tuple[str, ...] = ()
    """Values of the settings that differ between runs."""


@dataclass(frozen=True)
class RunTable:
    """Table with one row per run or group."""

    spans: tuple[tuple[str, int], ...]
    """Headings above several columns, with the number of columns."""
    headings: tuple[str, ...]
    settings: tuple[str, ...]
    """Names of the settings that differ between runs; their columns are the last."""
    rows: tuple[RunRow, ...]


def runs_table(comparison: RunComparison, settings: RunSettings, styles: Mapping[str, RunStyle]) -> RunTable:
    """Return one row per run: metrics, duration, and the settings that differ between runs."""
    columns, unit = columns_of(comparison.runs), common_unit(comparison.runs)
    rows = []
    for number, run in enumerate(comparison.runs):
        figures = (format_figure(column.key, figure_of(run, column)) or NONE for column in columns)
        cells = (f"{run.epochs_done} of {run.record.recipe['epochs']}", *figures, duration(run.seconds))
        texts = tuple(values[number] or NONE for values in settings.differing.values())
        rows.append(RunRow(run.name, styles[run.name], cells, texts))
    return RunTable(
        spans=(("", 2), *_spans(columns), ("", 1 + len(settings.differing))),
        headings=("run", "epochs", *(heading(column.key, unit) for column in columns), "time"),
        settings=tuple(settings.differing),
        rows=tuple(rows),
    )


def groups_table(comparison: RunComparison, styles: Mapping[str, RunStyle]) -> RunTable | None:
    """Return mean and standard deviation per group of seeds; None if every group has one run."""
    if all(len(group.runs) == 1 for group in comparison.groups):
        return None
    columns, unit = columns_of(comparison.runs), common_unit(comparison.runs)
    rows = []
    for group in comparison.groups:
        figures = (format_spread(column.key, group_figure(group, column)) or NONE for column in columns)
        rows.append(RunRow(group.name, styles[group.runs[0].name], (str(len(group.runs)), *figures)))
    headings = ("runs", "n", *(heading(column.key, unit) for column in columns))
    return RunTable((("", 2), *_spans(columns)), headings, (), tuple(rows))


def _spans(columns: Sequence[Column]) -> list[tuple[str, int]]:
    return [(title, len(list(members))) for title, members in groupby(columns, key=lambda column: column.group)]
