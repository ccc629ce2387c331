"""What `kdedge validate` says at its end."""

import shlex

import typer
from rich.table import Table

from kdedge.report.console import flagged, stderr_console
from kdedge.workflow.validate_model import Validation
from kdedge_export.validate import checklist
from kdedge_export.validate.roles import TITLES

__all__ = ["print_validation"]


def print_validation(validation: Validation) -> None:
    """Print the table, the checklist and where the report lies (the verdict on stdout, the rest on stderr)."""
    console = stderr_console()
    report = validation.report
    for note in validation.notes:
        console.print(flagged("note", note), soft_wrap=True)
    table = Table(title=f"{report.images:,} images: {report.data}", title_justify="left")
    for title in ("", "size", "top-1", "agreement", "KL", "map Pearson", "5th pct", "top-20 % IoU"):
        table.add_column(title, justify="right" if title else "left")
    for role, facts in report.models.items():
        compared = report.comparisons.get(role)
        maps = compared.maps if compared is not None else None
        table.add_row(
            TITLES[role],
            f"{facts.bytes / 1e6:.2f} MB",
            "–" if facts.top1 is None else f"{100 * facts.top1:.2f} %",
            "" if compared is None else f"{100 * compared.agreement:.2f} %",
            "" if compared is None else f"{compared.kl:.4f}",
            "" if maps is None else f"{maps.pearson_mean:.4f}",
            "" if maps is None else f"{maps.pearson_p5:.4f}",
            "" if maps is None else f"{maps.top20_iou_mean:.3f}",
        )
    console.print(table)
    for line in checklist(report.checks):
        typer.echo(line)
    console.print(f"\nreport: {validation.page}", soft_wrap=True)
    if report.passed:
        command = ["kdedge", "run", str(validation.model), "--source", "0", "--view", "8080"]
        console.print(f"Next: {shlex.join(command)}", soft_wrap=True)
