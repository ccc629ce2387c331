"""The `kdedge feedback` command: export user corrections collected on the device."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from kdedge_runtime.feedback import FolderSummary

__all__ = ["feedback"]

feedback = typer.Typer(help="Turn user corrections from the device into training data.", no_args_is_help=True)


@feedback.callback()
def _group() -> None:
    """Keep `export` as a subcommand. Typer merges a single command into its group otherwise."""


@feedback.command()
def export(
    database: Annotated[Path, typer.Argument(metavar="DB", help="Database written by kdedge-run --feedback.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Output folder: CLASS/*.jpg and boxes.csv.")
    ] = None,
    unknown: Annotated[
        Path | None,
        typer.Option(help="Output folder for samples of none of the classes. [default: they are excluded]"),
    ] = None,
) -> None:
    """Export reviewed samples as class folders, with the labels that users gave, and unknown ones to name."""
    from kdedge.cli.console import stderr_console
    from kdedge_runtime.errors import UsageError
    from kdedge_runtime.feedback import FeedbackStore, write_class_folders, write_unknown

    if output is None and unknown is None:
        raise UsageError(
            "There is nothing to write. Give a folder: -o DIR for the classes, --unknown DIR for the rest."
        )
    with FeedbackStore.open_to_read(database) as store, stderr_console().status("writing samples"):
        written = None if output is None else write_class_folders(store, output)
        count = None if unknown is None else write_unknown(store, unknown)
    if written is not None and output is not None:
        _print_feedback(written, output)
    if count is not None:
        stderr_console().print(
            f"{unknown}: {count:,} samples of none of the classes. Move them to class folders, or measure with them: "
            f"kdedge validate RUN --unfamiliar {unknown}",
            soft_wrap=True,
        )


def _print_feedback(written: "FolderSummary", folder: Path) -> None:
    """Print the samples per class, the excluded entries, and the next step."""
    from kdedge.cli.console import stderr_console

    console = stderr_console()
    count = sum(written.samples.values())
    console.print(f"{folder}: {count:,} samples of {len(written.samples):,} classes, {written.boxes:,} with a box")
    for label, samples in written.samples.items():
        console.print(f"  {samples:6,}  {label}")
    if written.unlabeled:
        console.print(f"excluded: {written.unlabeled:,} marked as wrong or unknown, without a correct label")
    if written.superseded:
        console.print(f"excluded: {written.superseded:,} reviews replaced by a later review of the same sample")
    if written.samples:
        added = shlex.join(["cp", "-rn", f"{folder}/.", "DATA/train"])
        console.print(
            (
                f"\nNext: add them to the training samples of the model ({added}; DATA if it has no train/) "
                "and distill again."
            ),
            soft_wrap=True,
        )
