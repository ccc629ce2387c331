"""Table of the rows that users reviewed on the device."""

import csv
import io
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from kdedge_runtime.errors import DataError, UsageError
from kdedge_runtime.feedback import FeedbackSummary, Verdict
from kdedge_runtime.modalities.table_column import find_title, split_unit
from kdedge_runtime.util.files import atomic_write
from kdedge_runtime.util.table_rows import read_csv_rows

__all__ = ["write_reviewed_rows", "write_unknown_rows"]


def write_reviewed_rows(verdicts: Iterable[Verdict], file: Path, target: str) -> FeedbackSummary:
    """Write the rows with a label to a CSV file, with the label in the column of the target.

    The latest entry for a row counts. The file has the columns of the source in their order. A target that the source
    had is replaced; otherwise it is the last column. Columns of other sources follow, and their cells are empty for
    rows without them.

    Args:
        verdicts: entries, oldest first.
        file: output file, which must not exist.
        target: name of the target column, with its unit as in training.

    Raises:
        UsageError: the file exists, or a row has the target in another unit.
        DataError: no entry has a label, or the samples are not rows of a table.
    """
    count, last = _latest(verdicts, file, "-o FOLDER")
    labels = {content: verdict.true_label for content, verdict in last.items()}
    labeled = {content: label for content, label in labels.items() if label is not None}
    if not labeled:
        raise DataError(
            f"None of the {count:,} feedback entries gives a label. Expected predictions marked as right or "
            "corrected with another label."
        )
    rows = [_row(content) for content in labeled]
    for row, label in zip(rows, labeled.values(), strict=True):
        place = find_title(tuple(row), *split_unit(target))
        row[target if place is None else tuple(row)[place]] = label
    _write_rows(file, rows)
    samples = dict(sorted(Counter(labeled.values()).items()))
    return FeedbackSummary(samples, 0, len(last) - len(labeled), count - len(last))


def write_unknown_rows(verdicts: Iterable[Verdict], file: Path) -> int:
    """Write the rows whose latest entry is of none of the classes to a CSV file, and return their number.

    Args:
        verdicts: entries, oldest first.
        file: output file, which must not exist.

    Raises:
        UsageError: the file exists.
        DataError: no entry is unknown, or the samples are not rows of a table.
    """
    _, last = _latest(verdicts, file, "--unknown FOLDER")
    rows = [_row(content) for content, verdict in last.items() if verdict.judgment == "unknown"]
    if not rows:
        raise DataError(
            f"None of the {len(last):,} rows in the feedback is unknown. Expected rows recorded with --record-unknown."
        )
    _write_rows(file, rows)
    return len(rows)


def _latest(verdicts: Iterable[Verdict], file: Path, instead: str) -> tuple[int, dict[bytes, Verdict]]:
    """Return the number of entries, and the latest one of each row."""
    if file.exists():
        raise UsageError(f"{file} exists. Give a new file, so that no row is lost.")
    count = 0
    last: dict[bytes, Verdict] = {}
    for verdict in verdicts:
        if verdict.layout != "row":
            raise DataError(f"The feedback is about files (*{verdict.suffix}), not rows of a table. Use {instead}.")
        last[verdict.content] = verdict
        count += 1
    return count, last


def _row(content: bytes) -> dict[str, str | None]:
    """Decode a row as cells by title."""
    (row,) = read_csv_rows(io.StringIO(content.decode(), newline=""), "the feedback")
    return dict(zip(row.titles, row.cells, strict=True))


def _write_rows(file: Path, rows: Sequence[Mapping[str, str | None]]) -> None:
    titles: Collection[str] = dict.fromkeys(title for row in rows for title in row)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, titles, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    atomic_write(file, text.getvalue())
