"""What came out of the feedback, for a terminal."""

import shlex
from pathlib import Path

from kdedge.cli.console import stderr_console
from kdedge_runtime.feedback import Written

__all__ = ["print_feedback"]


def print_feedback(written: Written, folder: Path) -> None:
    """Say how many pictures each class got, what was left out, and what to type next."""
    console = stderr_console()
    count = sum(written.pictures.values())
    console.print(f"{folder}: {count:,} pictures of {len(written.pictures):,} classes, {written.boxes:,} with a box")
    for label, pictures in written.pictures.items():
        console.print(f"  {pictures:6,}  {label}")
    if written.unlabelled:
        console.print(f"left out: {written.unlabelled:,} that are only known to be answered wrongly")
    if written.superseded:
        console.print(f"left out: {written.superseded:,} verdicts on pictures that were judged again later")
    if written.pictures:
        added = shlex.join(["cp", "-rn", f"{folder}/.", "DATA/train"])
        console.print(
            f"\nNext: add them to the pictures that the model was trained on ({added}; DATA where it has no train/) "
            "and distill again.",
            soft_wrap=True,
        )
