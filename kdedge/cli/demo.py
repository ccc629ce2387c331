"""The `kdedge demo` command."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from kdedge.demo.demo_run import DemoResult

__all__ = ["demo"]


def demo(
    modality: Annotated[
        str, typer.Option(help="Kind of samples to draw: image, or another modality that is installed.")
    ] = "image",
    out: Annotated[
        Path | None, typer.Option(help="Folder for all files the demo writes. [default: runs/demo-MODALITY]")
    ] = None,
) -> None:
    """Run the whole pipeline on drawn samples. No download, 4 to 6 minutes of CPU time."""
    from kdedge.cli.console import stderr_console
    from kdedge.cli.training_screen import Screen
    from kdedge.demo.demo_run import run_demo

    console = stderr_console()
    with Screen(console) as screen:
        result = run_demo(
            modality,
            out or Path(f"runs/demo-{modality}"),
            screen,
            lambda heading: console.print(f"\n{heading}", style="bold"),
        )
    _print_demo(console, result)
    result.validation.require_passed()


def _print_demo(console: "Console", result: "DemoResult") -> None:
    """Print the checklist, the results table and the next command."""
    from rich.table import Table

    from kdedge.reports.run_settings import duration
    from kdedge_export.html.text import correlation
    from kdedge_export.validation import checklist

    console.print()
    for line in checklist(result.validation.report.checks):
        console.print(line, soft_wrap=True)
    table = Table(title=f"\nkdedge demo, {duration(result.seconds)}", title_justify="left")
    for title in ("", "size", "top-1", "agreement", "map Pearson", f"map on {result.scenario.evidence}", "latency"):
        table.add_column(title, justify="right" if title else "left")
    for row in result.rows:
        table.add_row(
            row.title,
            f"{row.megabytes:.2f} MB",
            f"{row.top1:.1%}",
            "" if row.agreement is None else f"{row.agreement:.1%}",
            "" if row.map_pearson is None else correlation(row.map_pearson),
            f"{row.energy_inside:.0%}",
            f"{row.latency_ms:.2f} ms{' ✓' if row.is_fastest else ''}",
        )
    console.print(table)
    console.print(
        (
            "Agreement and map Pearson compare the student with its teacher, and the exported files with the PyTorch "
            f"student. Map on {result.scenario.evidence} is the share of the map inside its exact mask; a uniform map "
            f"has {result.mask_share:.0%}. Latency is per sample on one thread, in PyTorch or onnxruntime. ✓ "
            "marks the file to run on machines like this one."
        ),
    )
    console.print(
        f"source   {result.scenario.sizes.frames} frames, {result.stream_right:.0%} classified correctly",
    )
    console.print(f"video    {result.validation.model.parent.parent / 'overlay.mp4'}", soft_wrap=True)
    console.print(f"report   {result.validation.page}", soft_wrap=True)
    command = ["kdedge", "run", str(result.fastest), "--source", result.scenario.live_source, "--view", "8080"]
    console.print(f"\nNext: {shlex.join(command)}", soft_wrap=True)
    console.print(f"With your own data: {result.scenario.next_data}", soft_wrap=True)
