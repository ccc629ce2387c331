"""Tables of the rows that users reviewed on the device."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from kdedge.data.table_schema import number_of
from kdedge_runtime.errors import UsageError
from kdedge_runtime.feedback import FeedbackSummary, LatestEntries, Verdict
from kdedge_runtime.modalities.table_column import find_title, split_unit
from kdedge_runtime.modalities.tabular import TabularInput
from kdedge_runtime.util.files import atomic_write

__all__ = ["write_reviewed_rows"]


def write_reviewed_rows(
    verdicts: Iterable[Verdict], file: Path | None, unknown: Path | None, target: str
) -> FeedbackSummary:
    """Write the labeled rows to a CSV file with the target, and those of none of the classes to one without it.

    The latest entry for a row counts. A file has the columns of the source in their order and the target last, which
    replaces that of the source. Columns of other sources are joined by their names; cells that a source lacks are
    empty. Nothing is written if an output is not possible.

    Args:
        verdicts: entries, oldest first. Iterated twice, so pass a `FeedbackStore` or a list.
        file: output file for labeled rows, which must not exist; None for none.
        unknown: output file for rows of none of the classes, without the target; None for none.
        target: name of the target column, with its unit as in training.

    Raises:
        UsageError: a file exists or is no CSV file, both are the same, rows have a column in several units, or the
            target has other values than labels.
        DataError: there is nothing to write to a file.
    """
    for option, output in (("-o", file), ("--unknown", unknown)):
        _check_output(output, option)
    if file is not None and file == unknown:
        raise UsageError(f"-o and --unknown are both {file}. Use two files.")
    latest = LatestEntries.of(verdicts, labels=file is not None, unknown=unknown is not None)
    _check_target(verdicts, target, set(latest.labels.values()))
    labeled: dict[bytes, list[str]] = {}
    strange: dict[bytes, list[str]] = {}
    titles: list[str] = []
    for verdict in verdicts:
        digest = latest.digest(verdict)
        if digest in latest.labels or digest in latest.unknown:
            rows = labeled if digest in latest.labels else strange
            rows.setdefault(digest, _cells(verdict.content, titles, target))
    tables = [
        (unknown, titles, list(strange.values())),
        (file, [*titles, target], [_padded(row, len(titles), latest.labels[key]) for key, row in labeled.items()]),
    ]
    for path, header, rows_of_file in tables:
        if path is not None:
            _write(path, header, rows_of_file)
    return latest.summary


def _check_output(output: Path | None, option: str) -> None:
    if output is None:
        return
    if output.suffix.lower() != ".csv":
        raise UsageError(f"Rows of a table become one file, and {output} is no CSV file. Use {option} FILE.csv.")
    if output.exists():
        raise UsageError(f"{output} exists. Use a new file, so that no row is lost: {option} FILE.csv.")


def _check_target(verdicts: Iterable[Verdict], target: str, labels: set[str]) -> None:
    """Raise if the sources have the target with other values than labels: it is probably another column."""
    if not labels or any(number_of(label) is not None for label in labels):
        return  # measured values differ from those of the source
    values = {value for verdict in verdicts if (value := _target_of(verdict.content, target))}
    if values and not values & labels:
        raise UsageError(
            f"The column {target!r} of the rows has {min(values)!r}, but the labels are "
            f"{', '.join(map(repr, sorted(labels)[:3]))}. Expected the target of the training: --target COLUMN."
        )


def _target_of(content: bytes, target: str) -> str | None:
    row = TabularInput.decode_sample(content)
    place = find_title(row.dtype.names or (), *split_unit(target))
    return None if place is None else str(row.item()[place])


def _cells(content: bytes, titles: list[str], target: str) -> list[str]:
    """Return the cells of a row in the order of the titles, without the target; new titles are appended."""
    row = TabularInput.decode_sample(content)
    names = row.dtype.names
    assert names is not None
    own_target = find_title(names, *split_unit(target))
    cells = [""] * len(titles)
    for place, (title, cell) in enumerate(zip(names, row.item(), strict=True)):
        if place == own_target:
            continue
        name, unit = split_unit(title)
        known = find_title(titles, name, unit)
        if known is None:
            titles.append(title)
            cells.append(cell)
            continue
        cells[known] = cell
        if split_unit(titles[known]) == (name, None):
            titles[known] = title  # possibly with a unit, which later rows must have
    return cells


def _padded(cells: Sequence[str], columns: int, label: str) -> list[str]:
    """Return the cells of all columns, and the label last."""
    return [*cells, *[""] * (columns - len(cells)), label]


def _write(file: Path, titles: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([titles, *([*row, *[""] * (len(titles) - len(row))] for row in rows)])
    atomic_write(file, text.getvalue())
