"""The `kdedge feedback` command: export user corrections collected on the device."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["feedback"]

feedback = typer.Typer(help="Turn user corrections from the device into training data.", no_args_is_help=True)


@feedback.callback()
def _group() -> None:
    """Keep `export` as a subcommand. Typer merges a single command into its group otherwise."""


@feedback.command()
def export(
    database: Annotated[Path, typer.Argument(metavar="DB", help="Database written by kdedge-run --feedback.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Output folder: CLASS/*.jpg and boxes.csv.")],
) -> None:
    """Export reviewed images as class folders, with the labels that users gave."""
    from kdedge.cli.console import stderr_console
    from kdedge.cli.feedback_summary import print_feedback
    from kdedge_runtime.feedback import FeedbackStore, write_class_folders

    with FeedbackStore.open_to_read(database) as store, stderr_console().status("writing images"):
        written = write_class_folders(store, output)
    print_feedback(written, output)
