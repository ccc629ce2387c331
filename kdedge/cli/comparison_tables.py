"""Output of `kdedge compare`: tables for the terminal, or JSON lines."""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from kdedge.cli.console import PrintableConsole, flagged, stderr_console
from kdedge.pipelines.run_comparison import RunComparison
from kdedge.reports.run_figures import (
    FIGURES,
    Column,
    columns_of,
    figure_of,
    format_figure,
    format_spread,
    group_figure,
)
from kdedge.reports.run_settings import duration, run_settings

__all__ = ["json_lines", "print_remarks", "print_tables"]

_NO_LIMIT = 10_000
"""Console width in columns if the output is not a terminal."""


def print_remarks(comparison: RunComparison) -> None:
    """Print comparability warnings and notes on excluded data to stderr."""
    console = stderr_console()
    for doubt in comparison.doubts:
        console.print(flagged("warning", doubt), soft_wrap=True)
    for note in comparison.notes:
        console.print(flagged("note", note), soft_wrap=True)


def print_tables(comparison: RunComparison) -> None:
    """Print one row per run to stdout, and one row per group of runs that differ only in their seed.

    Settings shared by all runs are printed once. On narrow terminals the least informative settings are omitted.
    """
    console = PrintableConsole(
        highlight=False, markup=False, emoji=False, width=None if sys.stdout.isatty() else _NO_LIMIT
    )
    settings = run_settings(comparison)
    whom = "all runs" if len(comparison.runs) > 1 else comparison.runs[0].name
    console.print(f"{whom}: {', '.join(f'{name} {text}' for name, text in settings.shared.items())}")
    columns, shown, dropped = columns_of(comparison.runs), dict(settings.differing), list[str]()
    while not _fits(console, _runs_table(comparison, columns, shown)) and shown:
        dropped.insert(0, shown.popitem()[0])
    tables = [_runs_table(comparison, columns, shown), *_groups_tables(comparison, columns)]
    while not all(_fits(console, table) for table in tables) and len(columns) > len(FIGURES):
        dropped.insert(0, _heading(columns.pop()).replace("\n", " "))
        tables = [_runs_table(comparison, columns, shown), *_groups_tables(comparison, columns)]
    for table in tables:
        console.print(table)
    if dropped:
        console.print(f"Omitted, because the terminal is too narrow: {', '.join(dropped)}.")


def json_lines(comparison: RunComparison) -> Iterator[str]:
    """Yield one JSON object per run: its request, and its metrics as in `run.json` and `metrics.jsonl`."""
    for run in comparison.runs:
        record = run.record
        yield json.dumps(
            {
                "run": run.name,
                "folder": str(run.folder),
                "kind": record.kind,
                "model": record.model.name,
                "parameters": comparison.parameters.get(run.name),
                "teacher": record.teacher,
                "data": record.data,
                "recipe": record.recipe,
                "device": record.device,
                "epochs_done": run.epochs_done,
                "seconds": run.seconds,
                "best": run.best,
                "last": run.last,
                "test": run.test or None,
            },
            ensure_ascii=False,
        )


def _runs_table(comparison: RunComparison, columns: list[Column], settings: Mapping[str, tuple[str, ...]]) -> Table:
    table = _table(["run"], ["epochs", *map(_heading, columns), "time"], settings)
    for index, run in enumerate(comparison.runs):
        table.add_row(
            run.name,
            f"{run.epochs_done}/{run.record.recipe['epochs']}",
            *(format_figure(column.key, figure_of(run, column)) for column in columns),
            duration(run.seconds),
            *(texts[index] for texts in settings.values()),
        )
    return table


def _groups_tables(comparison: RunComparison, columns: list[Column]) -> list[Table]:
    """Return the table of groups, or an empty list if no group has more than one run."""
    if all(len(group.runs) == 1 for group in comparison.groups):
        return []
    table = _table(["mean ± std\nover seeds"], ["n", *map(_heading, columns)])
    for group in comparison.groups:
        figures = (format_spread(column.key, group_figure(group, column)) for column in columns)
        table.add_row(group.name, str(len(group.runs)), *figures)
    return [table]


def _table(names: Iterable[str], numbers: Iterable[str], texts: Iterable[str] = ()) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for headings, justify in ((names, "left"), (numbers, "right"), (texts, "left")):
        for heading in headings:
            table.add_column(heading, justify=justify, vertical="bottom", no_wrap=True)  # type: ignore[arg-type]
    return table


def _heading(column: Column) -> str:
    return f"{column.which}{' test' * (column.side == 'test')}\n{FIGURES[column.key]}"


def _fits(console: Console, table: Table) -> bool:
    without_limit = console.options.update(width=_NO_LIMIT)
    return Measurement.get(console, without_limit, table).maximum <= console.width
