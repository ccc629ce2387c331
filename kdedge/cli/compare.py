"""The `kdedge compare` command."""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kdedge.cli.options import TrustCode

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from kdedge.pipelines.run_comparison import RunComparison
    from kdedge.reports.run_figures import Column

__all__ = ["compare"]

_NO_LIMIT = 10_000
"""Console width in columns if the output is not a terminal."""


def compare(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN", help="Run folders, complete or not; the first is the baseline.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="HTML page to write.")] = Path("compare.html"),
    data: Annotated[
        str | None, typer.Option(help="Samples to evaluate all runs on. [default: each run's validation split]")
    ] = None,
    trust_code: TrustCode = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object per run instead of the table.")
    ] = False,
) -> None:
    """Compare runs in a table and an HTML page. The page shows learning curves, predictions and maps."""
    from kdedge.models.run_folder import TEACHER_CACHE, read_run

    runs = [
        run for run in runs if run.name != TEACHER_CACHE
    ] or runs  # `runs/*/` also matches the cache of teacher outputs
    for run in runs:  # before torch is imported, which takes seconds
        read_run(run)
    from kdedge.cli.progress_bar import step_progress
    from kdedge.pipelines.run_comparison import compare_runs
    from kdedge.reports.comparison_page import write_page

    with step_progress() as progress:
        comparison = compare_runs(runs, data=data, progress=progress)
    write_page(comparison, output)
    _print_remarks(comparison)
    if as_json:
        for line in _json_lines(comparison):
            typer.echo(line)
    else:
        _print_tables(comparison)
    typer.echo(f"page: {output}", err=True)


def _print_remarks(comparison: "RunComparison") -> None:
    """Print comparability warnings and notes on excluded data to stderr."""
    from kdedge.cli.console import flagged, stderr_console

    console = stderr_console()
    for warning in comparison.warnings:
        console.print(flagged("warning", warning), soft_wrap=True)
    for note in comparison.notes:
        console.print(flagged("note", note), soft_wrap=True)


def _print_tables(comparison: "RunComparison") -> None:
    """Print one row per run to stdout, and one row per group of runs that differ only in their seed.

    Settings shared by all runs are printed once. On narrow terminals the least informative settings are omitted.
    """
    from kdedge.cli.console import PrintableConsole
    from kdedge.reports.run_figures import columns_of
    from kdedge.reports.run_settings import run_settings

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
    while not all(_fits(console, table) for table in tables) and len(columns) > len({each.key for each in columns}):
        dropped.insert(0, _headings(comparison, [columns.pop()])[0].replace("\n", " "))
        tables = [_runs_table(comparison, columns, shown), *_groups_tables(comparison, columns)]
    for table in tables:
        console.print(table)
    if dropped:
        console.print(f"Omitted, because the terminal is too narrow: {', '.join(dropped)}.")


def _json_lines(comparison: "RunComparison") -> Iterator[str]:
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


def _runs_table(
    comparison: "RunComparison", columns: "list[Column]", settings: Mapping[str, tuple[str, ...]]
) -> "Table":
    from kdedge.reports.run_figures import figure_of, format_figure
    from kdedge.reports.run_settings import duration

    table = _table(["run"], ["epochs", *_headings(comparison, columns), "time"], settings)
    for index, run in enumerate(comparison.runs):
        table.add_row(
            run.name,
            f"{run.epochs_done}/{run.record.recipe['epochs']}",
            *(format_figure(column.key, figure_of(run, column)) for column in columns),
            duration(run.seconds),
            *(texts[index] for texts in settings.values()),
        )
    return table


def _groups_tables(comparison: "RunComparison", columns: "list[Column]") -> "list[Table]":
    """Return the table of groups, or an empty list if no group has more than one run."""
    from kdedge.reports.run_figures import format_spread, group_figure

    if all(len(group.runs) == 1 for group in comparison.groups):
        return []
    table = _table(["mean ± std\nover seeds"], ["n", *_headings(comparison, columns)])
    for group in comparison.groups:
        figures = (format_spread(column.key, group_figure(group, column)) for column in columns)
        table.add_row(group.name, str(len(group.runs)), *figures)
    return [table]


def _table(names: Iterable[str], numbers: Iterable[str], texts: Iterable[str] = ()) -> "Table":
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for headings, justify in ((names, "left"), (numbers, "right"), (texts, "left")):
        for heading in headings:
            table.add_column(heading, justify=justify, vertical="bottom", no_wrap=True)  # type: ignore[arg-type]
    return table


def _headings(comparison: "RunComparison", columns: "list[Column]") -> list[str]:
    from kdedge.reports.run_figures import common_unit, heading

    unit = common_unit(comparison.runs)
    return [f"{column.which}{' test' * (column.side == 'test')}\n{heading(column.key, unit)}" for column in columns]


def _fits(console: "Console", table: "Table") -> bool:
    from rich.measure import Measurement

    without_limit = console.options.update(width=_NO_LIMIT)
    return Measurement.get(console, without_limit, table).maximum <= console.width
