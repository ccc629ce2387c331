"""Export of feedback to class folders for training."""

import csv
import io
from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import Path

from kdedge_runtime.drawing.heatmap import Box
from kdedge_runtime.errors import DataError, UsageError
from kdedge_runtime.feedback.latest_entries import FeedbackSummary, LatestEntries
from kdedge_runtime.feedback.verdict import Verdict
from kdedge_runtime.util.files import atomic_write
from kdedge_runtime.util.images import open_image

__all__ = ["write_class_folders"]

_FORBIDDEN = '<>:"/\\|?*'
"""Characters that are invalid in folder names on some systems."""
_MAX_BYTES = 240
"""Maximum length of a folder name in bytes; most systems allow 255."""


def write_class_folders(
    verdicts: Iterable[Verdict], folder: Path | None, unknown: Path | None = None
) -> FeedbackSummary:
    """Write the samples into class folders by their corrected labels, and annotated boxes to `boxes.csv`.

    Images are named `CLASS/feedback-DIGEST.jpg` by content, so they never overwrite other images; other samples have
    their own suffix. The latest entry for a sample counts. `boxes.csv` has the columns `file,x1,y1,x2,y2` in image
    pixels. Nothing is written if an output is not possible.

    Args:
        verdicts: entries, oldest first. Iterated twice, so pass a `FeedbackStore` or a list.
        folder: output folder for labeled samples, created if missing; an existing one must be empty. None for none.
        unknown: output folder for samples of none of the classes, named `unknown-DIGEST.jpg`. None for none.

    Raises:
        UsageError: a folder is not empty, or both are the same.
        DataError: there is nothing to write to a folder, or two labels would share a class folder.
    """
    for option, output in (("-o", folder), ("--unknown", unknown)):
        _check_empty(output, option)
    if folder is not None and folder == unknown:
        raise UsageError(f"-o and --unknown are both {folder}. Use two folders.")
    latest = LatestEntries.of(verdicts, labels=folder is not None, unknown=unknown is not None)
    names = _folder_names(set(latest.labels.values()))
    boxes: list[tuple[str, int, int, int, int]] = []
    written: set[bytes] = set()
    for verdict in verdicts:
        digest = latest.digest(verdict)
        if digest in written:
            continue
        written.add(digest)
        name = f"{digest[:8].hex()}{verdict.suffix}"
        if folder is not None and digest in latest.labels:
            file = f"{names[latest.labels[digest]]}/feedback-{name}"
            atomic_write(folder / file, verdict.content, durable=False)
            if digest in latest.boxes:
                boxes.append((file, *_pixels(verdict, latest.boxes[digest])))
        if unknown is not None and digest in latest.unknown:
            atomic_write(unknown / f"unknown-{name}", verdict.content, durable=False)
    if folder is not None and boxes:
        atomic_write(folder / "boxes.csv", _table(boxes))
    return latest.summary


def _check_empty(folder: Path | None, option: str) -> None:
    if folder is not None and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is not empty. Use a new or empty folder: {option} FOLDER.")


def _folder_names(labels: Collection[str]) -> dict[str, str]:
    """Return a folder name for each label. Invalid characters are replaced, so that no path leaves the folder."""
    names = {label: _folder_name(label) for label in sorted(labels)}
    shared = Counter(name.casefold() for name in names.values())
    clashing = [label for label, name in names.items() if shared[name.casefold()] > 1]
    if clashing:
        raise DataError(
            f"The labels {', '.join(map(repr, clashing))} would share a folder. Expected labels that differ in more "
            "than letter case and punctuation. To rename a typed label, edit a copy of the file: `sqlite3 FILE "
            "\"UPDATE feedback SET correct_label = 'THIS' WHERE correct_label = 'THAT'\"`."
        )
    return names


def _folder_name(label: str) -> str:
    clean = "".join("-" if character in _FORBIDDEN or ord(character) < 32 else character for character in label)
    short = clean.encode()[:_MAX_BYTES].decode(errors="ignore")
    # A leading dot hides a folder, and Windows removes trailing dots.
    return short.strip(" .") or "-"


def _pixels(verdict: Verdict, box: Box) -> tuple[int, int, int, int]:
    with open_image(verdict.frame_name, verdict.content) as image:
        width, height = image.size
    left, top, right, bottom = box
    x1, y1 = min(round(left * width), width - 1), min(round(top * height), height - 1)
    return x1, y1, max(round(right * width), x1 + 1), max(round(bottom * height), y1 + 1)


def _table(boxes: Iterable[tuple[str, int, int, int, int]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("file", "x1", "y1", "x2", "y2"))
    writer.writerows(boxes)
    return text.getvalue()
