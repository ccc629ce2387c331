"""The `kdedge feedback` command: export user corrections collected on the device."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from kdedge_runtime.feedback import FeedbackSummary

__all__ = ["feedback"]

_MAX_LISTED = 100
"""Maximum number of labels that are listed, those with the most samples."""

feedback = typer.Typer(help="Turn user corrections from the device into training data.", no_args_is_help=True)


@feedback.callback()
def _group() -> None:
    """Keep `export` as a subcommand. Typer merges a single command into its group otherwise."""


@feedback.command()
def export(
    database: Annotated[Path, typer.Argument(metavar="DB", help="Database written by kdedge-run --feedback.")],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Output folder: CLASS/*.jpg and boxes.csv. For rows of a table: FILE.csv."),
    ] = None,
    unknown: Annotated[
        Path | None,
        typer.Option(help="Output folder for samples of none of the classes, or FILE.csv. [default: excluded]"),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Column for the labels of rows; required for a table."),
    ] = None,
) -> None:
    """Export reviewed samples as training data."""
    from kdedge.cli.console import stderr_console
    from kdedge.modalities import TRAINING_MODALITIES
    from kdedge_runtime.errors import DataError, UsageError
    from kdedge_runtime.feedback import FeedbackStore

    if output is None and unknown is None:
        raise UsageError(
            "There is nothing to write. Give an output: -o DIR for labeled samples, --unknown DIR for those of none of "
            "the classes; for rows of a table -o FILE.csv --target COLUMN."
        )
    with FeedbackStore.open_to_read(database) as store, stderr_console().status("writing samples"):
        if store.kind is None:
            raise DataError(
                f"{database} has no entries yet. Expected predictions that users reviewed in the live view."
            )
        summary = TRAINING_MODALITIES[store.kind].write_feedback(store, output, unknown, target)
    _print_summary(summary, output, unknown, target)


def _print_summary(summary: "FeedbackSummary", output: Path | None, unknown: Path | None, target: str | None) -> None:
    """Print the samples per class, the excluded entries, and the next steps."""
    from kdedge.cli.console import stderr_console
    from kdedge_runtime.util.counts import counted

    console = stderr_console()
    if output is not None:
        count = counted(sum(summary.samples.values()), "sample")
        boxes = f", {summary.boxes:,} with a box" if summary.boxes else ""
        console.print(f"{output}: {count} with {counted(len(summary.samples), 'label')}{boxes}")
        largest = sorted(summary.samples.items(), key=lambda item: -item[1])[:_MAX_LISTED]
        for label, number in sorted(largest):
            console.print(f"  {number:6,}  {label}")
        if len(largest) < len(summary.samples):
            console.print(f"  … and {counted(len(summary.samples) - len(largest), 'label')} with fewer samples")
    if unknown is not None:
        console.print(f"{unknown}: {counted(summary.unknown, 'sample')} of none of the classes")
    if summary.excluded:
        console.print(f"excluded: {counted(summary.excluded, 'sample')} without a correct label")
    if summary.superseded:
        reviews = counted(summary.superseded, "review")
        console.print(f"excluded: {reviews} replaced by a later review of the same sample")
    if output is not None:
        if target is None:
            added = shlex.join(["cp", "-rn", f"{output}/.", "DATA/train"])
            step = f"add them to the training samples ({added}; DATA if it has no train/)"
        else:
            step = "append the rows to the table of the training"
        again = "kdedge distill DATA" + ("" if target is None else f" --target {shlex.quote(target)}")
        console.print(f"\nNext: {step} and distill again: {again} --teacher RUN --student NAME", soft_wrap=True)
    if unknown is not None:
        kept = "label them" if target is not None else "move them to class folders"
        measured = f"kdedge validate RUN --unfamiliar {shlex.quote(str(unknown))}"
        console.print(f"\nNext: {kept}, or measure with them: {measured}", soft_wrap=True)
