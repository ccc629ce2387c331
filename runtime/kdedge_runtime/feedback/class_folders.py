"""Export of feedback to class folders for training."""

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from kdedge_runtime.drawing.heatmap import Box
from kdedge_runtime.errors import DataError, UsageError
from kdedge_runtime.feedback.verdict import Verdict
from kdedge_runtime.util.files import atomic_write
from kdedge_runtime.util.images import open_image

__all__ = ["FeedbackSummary", "write_class_folders", "write_unknown"]

_FORBIDDEN = '<>:"/\\|?*'
"""Characters that are invalid in folder names on some systems."""
_LONGEST_BYTES = 240
"""Maximum length of a folder name in bytes; most systems allow 255."""


@dataclass(frozen=True)
class FeedbackSummary:
    """Summary of an export."""

    samples: dict[str, int]
    """Number of samples by label, sorted."""
    boxes: int
    unlabeled: int
    """Samples known only to be misclassified or unknown, so they have no label."""
    superseded: int
    """Entries replaced by later feedback on the same sample."""


def write_class_folders(verdicts: Iterable[Verdict], folder: Path) -> FeedbackSummary:
    """Write the samples into class folders by their corrected labels, and annotated boxes to `boxes.csv`.

    Images are named `CLASS/feedback-DIGEST.jpg` by content, so they never overwrite other images; other samples have
    their own suffix. The latest entry for a sample counts. `boxes.csv` has the columns `file,x1,y1,x2,y2` in image
    pixels.

    Args:
        verdicts: entries, oldest first. Iterated twice, so pass a `FeedbackStore` or a list.
        folder: output folder, created if missing; an existing one must be empty.

    Raises:
        UsageError: the folder is not empty.
        DataError: no entry has a label, two labels would share a folder, or the samples are rows of a table.
    """
    _check_empty(folder, "-o")
    _check_files(verdicts, "-o FILE.csv --target COLUMN")
    last: dict[bytes, tuple[str | None, Box | None]] = {}
    count = 0
    for verdict in verdicts:
        last[_digest(verdict)] = (verdict.true_label, verdict.box)
        count += 1
    labeled = {digest: (label, box) for digest, (label, box) in last.items() if label is not None}
    if not labeled:
        raise DataError(
            f"None of the {count:,} feedback entries gives a label. Expected predictions marked as right or "
            "corrected with another label."
        )
    names = _folder_names({label for label, _ in labeled.values()})
    samples: Counter[str] = Counter()
    boxes: list[tuple[str, int, int, int, int]] = []
    for verdict in verdicts:
        digest = _digest(verdict)
        label, box = labeled.pop(digest, (None, None))
        if label is None:
            continue
        samples[label] += 1
        file = f"{names[label]}/feedback-{digest[:8].hex()}{verdict.suffix}"
        atomic_write(folder / file, verdict.content, durable=False)
        if box is not None:
            boxes.append((file, *_pixels(verdict, box)))
    if boxes:
        atomic_write(folder / "boxes.csv", _table(boxes))
    unlabeled = sum(label is None for label, _ in last.values())
    return FeedbackSummary(dict(sorted(samples.items())), len(boxes), unlabeled, count - len(last))


def write_unknown(verdicts: Iterable[Verdict], folder: Path) -> int:
    """Write the samples whose latest entry is of none of the classes to `unknown-DIGEST.jpg`, and return their number.

    Other samples have their own suffix.

    Args:
        verdicts: entries, oldest first. Iterated twice, so pass a `FeedbackStore` or a list.
        folder: output folder, created if missing; an existing one must be empty.

    Raises:
        UsageError: the folder is not empty.
        DataError: no entry is unknown, or the samples are rows of a table.
    """
    _check_empty(folder, "--unknown")
    _check_files(verdicts, "--unknown FILE.csv")
    last = {_digest(verdict): verdict.judgment for verdict in verdicts}
    if "unknown" not in last.values():
        raise DataError(
            f"None of the {len(last):,} samples in the feedback is unknown. Expected frames recorded with "
            "--record-unknown."
        )
    count = 0
    for verdict in verdicts:
        digest = _digest(verdict)
        if last.pop(digest, None) == "unknown":
            atomic_write(folder / f"unknown-{digest[:8].hex()}{verdict.suffix}", verdict.content, durable=False)
            count += 1
    return count


def _check_empty(folder: Path, option: str) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is not empty. Use a new or empty folder: {option} FOLDER.")


def _check_files(verdicts: Iterable[Verdict], instead: str) -> None:
    if any(verdict.layout == "row" for verdict in verdicts):
        raise DataError(f"The feedback is about rows of a table, which belong into one file. Use {instead}.")


def _digest(verdict: Verdict) -> bytes:
    return hashlib.sha256(verdict.content).digest()


def _folder_names(labels: Collection[str]) -> dict[str, str]:
    """Return a folder name for each label. Invalid characters are replaced, so that no path leaves the folder."""
    names = {label: _folder_name(label) for label in sorted(labels)}
    shared = Counter(name.casefold() for name in names.values())
    clashing = [label for label, name in names.items() if shared[name.casefold()] > 1]
    if clashing:
        raise DataError(
            f"The labels {', '.join(map(repr, clashing))} would share a folder. Expected labels that differ in more "
            "than letter case and punctuation. To rename a typed label, edit a copy of the file: `sqlite3 FILE "
            "\"UPDATE verdict SET correct_label = 'THIS' WHERE correct_label = 'THAT'\"`."
        )
    return names


def _folder_name(label: str) -> str:
    clean = "".join("-" if character in _FORBIDDEN or ord(character) < 32 else character for character in label)
    short = clean.encode()[:_LONGEST_BYTES].decode(errors="ignore")
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
