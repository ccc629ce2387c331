"""The `kdedge compare` command."""

from pathlib import Path
from typing import Annotated

import typer

from kdedge.cli.options import TrustCode

__all__ = ["compare"]


def compare(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN", help="Run folders, complete or not; the first is the baseline.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="HTML page to write.")] = Path("compare.html"),
    data: Annotated[
        str | None, typer.Option(help="Images to evaluate all runs on. [default: each run's validation split]")
    ] = None,
    trust_code: TrustCode = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object per run instead of the table.")
    ] = False,
) -> None:
    """Compare runs in a table and an HTML page. The page shows learning curves, classes and maps."""
    from kdedge.models.run_folder import TEACHER_CACHE, read_run

    runs = [
        run for run in runs if run.name != TEACHER_CACHE
    ] or runs  # `runs/*/` also matches the cache of teacher outputs
    for run in runs:  # before torch is imported, which takes seconds
        read_run(run)
    from kdedge.cli.comparison_tables import json_lines, print_remarks, print_tables
    from kdedge.cli.progress_bar import step_progress
    from kdedge.pipelines.run_comparison import compare_runs
    from kdedge.reports.comparison_page import write_page

    with step_progress() as progress:
        comparison = compare_runs(runs, data=data, progress=progress)
    write_page(comparison, output)
    print_remarks(comparison)
    if as_json:
        for line in json_lines(comparison):
            typer.echo(line)
    else:
        print_tables(comparison)
    typer.echo(f"page: {output}", err=True)
