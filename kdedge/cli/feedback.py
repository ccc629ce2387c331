"""The `kdedge feedback` command: export user corrections collected on the device."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from kdedge_runtime.feedback import FeedbackStore, FeedbackSummary

__all__ = ["feedback"]

_MOST_LISTED = 100
"""Maximum number of labels that are listed; the values of a regression may all differ."""

feedback = typer.Typer(help="Turn user corrections from the device into training data.", no_args_is_help=True)


@feedback.callback()
def _group() -> None:
    """Keep `export` as a subcommand. Typer merges a single command into its group otherwise."""


@feedback.command()
def export(
    database: Annotated[Path, typer.Argument(metavar="DB", help="Database written by kdedge-run --feedback.")],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Output folder: CLASS/*.jpg and boxes.csv; for rows of a table FILE.csv."),
    ] = None,
    unknown: Annotated[
        Path | None,
        typer.Option(help="Output folder, or FILE.csv, for samples of none of the classes. [default: excluded]"),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Column for the labels; required for rows of a table."),
    ] = None,
) -> None:
    """Export reviewed samples with the labels that users gave, and unknown ones to name."""
    from kdedge.cli.console import stderr_console
    from kdedge_runtime.errors import UsageError
    from kdedge_runtime.feedback import FeedbackStore
    from kdedge_runtime.util.counts import counted

    if output is None and unknown is None:
        raise UsageError("There is nothing to write. Give an output: -o DIR for the labeled samples, --unknown DIR.")
    if target is not None and (output is None or not _is_table(output)):
        raise UsageError("--target names a column of a table. Write one with -o FILE.csv, or remove --target.")
    with FeedbackStore.open_to_read(database) as store, stderr_console().status("writing samples"):
        written = None if output is None else _write_labeled(store, output, target)
        count = None if unknown is None else _write_unknown(store, unknown)
    if written is not None and output is not None:
        _print_feedback(written, output)
    if count is not None and unknown is not None:
        named = "Add the column of the target" if _is_table(unknown) else "Move them to class folders"
        stderr_console().print(
            f"{unknown}: {counted(count, 'sample')} of none of the classes. {named}, or measure with them: "
            f"kdedge validate RUN --unfamiliar {shlex.quote(str(unknown))}",
            soft_wrap=True,
        )


def _is_table(output: Path) -> bool:
    return output.suffix.lower() == ".csv"


def _write_labeled(store: "FeedbackStore", output: Path, target: str | None) -> "FeedbackSummary":
    from kdedge.data.reviewed_rows import write_reviewed_rows
    from kdedge_runtime.errors import UsageError
    from kdedge_runtime.feedback import write_class_folders

    if not _is_table(output):
        return write_class_folders(store, output)
    if target is None:
        raise UsageError("A table needs a column for the labels. Name it as in training: --target COLUMN.")
    return write_reviewed_rows(store, output, target)


def _write_unknown(store: "FeedbackStore", output: Path) -> int:
    from kdedge.data.reviewed_rows import write_unknown_rows
    from kdedge_runtime.feedback import write_unknown

    return write_unknown_rows(store, output) if _is_table(output) else write_unknown(store, output)


def _print_feedback(written: "FeedbackSummary", output: Path) -> None:
    """Print the samples per class, the excluded entries, and the next step."""
    from kdedge.cli.console import stderr_console
    from kdedge_runtime.util.counts import counted

    console = stderr_console()
    count = sum(written.samples.values())
    classes = f"{counted(len(written.samples), 'class', 'classes')}, {written.boxes:,} with a box"
    samples = (
        f"{counted(count, 'row')} with a label" if _is_table(output) else f"{counted(count, 'sample')} of {classes}"
    )
    console.print(f"{output}: {samples}")
    if len(written.samples) <= _MOST_LISTED:
        for label, number in written.samples.items():
            console.print(f"  {number:6,}  {label}")
    if written.unlabeled:
        console.print(f"excluded: {written.unlabeled:,} marked as wrong or unknown, without a correct label")
    if written.superseded:
        console.print(
            f"excluded: {counted(written.superseded, 'review')} replaced by a later review of the same sample"
        )
    if _is_table(output):
        console.print("\nNext: append the rows to the table of the training, and distill again.", soft_wrap=True)
        return
    added = shlex.join(["cp", "-rn", f"{output}/.", "DATA/train"])
    console.print(
        (
            f"\nNext: add them to the training samples of the model ({added}; DATA if it has no train/) "
            "and distill again."
        ),
        soft_wrap=True,
    )
