"""Terminal summary of exported user feedback."""

import shlex
from pathlib import Path

from kdedge.cli.console import stderr_console
from kdedge_runtime.feedback import FolderSummary

__all__ = ["print_feedback"]


def print_feedback(written: FolderSummary, folder: Path) -> None:
    """Print the images per class, the excluded entries, and the next step."""
    console = stderr_console()
    count = sum(written.images.values())
    console.print(f"{folder}: {count:,} images of {len(written.images):,} classes, {written.boxes:,} with a box")
    for label, images in written.images.items():
        console.print(f"  {images:6,}  {label}")
    if written.unlabeled:
        console.print(f"excluded: {written.unlabeled:,} marked as wrong without a correct label")
    if written.superseded:
        console.print(f"excluded: {written.superseded:,} reviews replaced by a later review of the same image")
    if written.images:
        added = shlex.join(["cp", "-rn", f"{folder}/.", "DATA/train"])
        console.print(
            (
                f"\nNext: add them to the training images of the model ({added}; DATA if it has no train/) "
                "and distill again."
            ),
            soft_wrap=True,
        )
