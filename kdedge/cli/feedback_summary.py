"""Terminal summary of exported user feedback."""

import shlex
from pathlib import Path

from kdedge.cli.console import stderr_console
from kdedge_runtime.feedback import Written

__all__ = ["print_feedback"]


def print_feedback(written: Written, folder: Path) -> None:
    """Print the images per class, the excluded entries, and the next step."""
    console = stderr_console()
    count = sum(written.pictures.values())
    console.print(f"{folder}: {count:,} images of {len(written.pictures):,} classes, {written.boxes:,} with a box")
    for label, pictures in written.pictures.items():
        console.print(f"  {pictures:6,}  {label}")
    if written.unlabelled:
        console.print(f"excluded: {written.unlabelled:,} marked as wrong without a correct label")
    if written.superseded:
        console.print(f"excluded: {written.superseded:,} reviews replaced by a later review of the same image")
    if written.pictures:
        added = shlex.join(["cp", "-rn", f"{folder}/.", "DATA/train"])
        console.print(
            (
                f"\nNext: add them to the training images of the model ({added}; DATA if it has no train/) "
                "and distill again."
            ),
            soft_wrap=True,
        )
