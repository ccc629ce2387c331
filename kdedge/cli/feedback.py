"""`kdedge feedback`: what people said on the device."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["feedback"]

feedback = typer.Typer(help="Turn what people said on the device into training data.", no_args_is_help=True)


@feedback.callback()
def _group() -> None:
    """Keep `export` a word of its own: Typer folds a lone command into its group."""


@feedback.command()
def export(
    database: Annotated[Path, typer.Argument(metavar="DB", help="File written by kdedge-run --feedback.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write: CLASS/*.jpg and boxes.csv.")],
) -> None:
    """Write the judged pictures as class folders, under the labels that people gave."""
    from kdedge.cli.console import stderr_console
    from kdedge.cli.feedback_summary import print_feedback
    from kdedge_runtime.feedback import FeedbackStore, write_folder

    with FeedbackStore.open_to_read(database) as store, stderr_console().status("writing pictures"):
        written = write_folder(store, output)
    print_feedback(written, output)
