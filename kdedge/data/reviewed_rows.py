"""Tables of the rows that users reviewed on the device."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
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
        UsageError: a file exists or is not a CSV file, both are the same, rows have a column in several units, or the
            target has values that are not labels.
        DataError: there is nothing to write to a file.
    """
    for option, output in (("-o", file), ("--unknown", unknown)):
        _check_output(output, option)
    if file is not None and file == unknown:
        raise UsageError(f"-o and --unknown are both {file}. Use two files.")
    latest = LatestEntries.of(verdicts, labels=file is not None, unknown=unknown is not None)
    titles: list[str] = []
    rows: dict[bytes, list[str]] = {}
    targets: set[str] = set()
    for verdict in verdicts:
        digest, row = latest.digest(verdict), _cells_by_title(verdict.content)
        place = find_title(tuple(row), *split_unit(target))
        if place is not None:
            targets.add(row.pop(tuple(row)[place]))
        if digest not in rows and (digest in latest.labels or digest in latest.unknown):
            rows[digest] = _in_order(row, titles)
    _check_target(target, targets - {""}, set(latest.labels.values()))
    whole = {digest: [*row, *[""] * (len(titles) - len(row))] for digest, row in rows.items()}
    if unknown is not None:
        _write(unknown, titles, [row for digest, row in whole.items() if digest in latest.unknown])
    if file is not None:
        labels = latest.labels
        _write(file, [*titles, target], [[*row, labels[each]] for each, row in whole.items() if each in labels])
    return latest.summary


def _check_output(output: Path | None, option: str) -> None:
    if output is None:
        return
    if output.suffix.lower() != ".csv":
        raise UsageError(f"Rows of a table become one file, and {output} is not a CSV file. Use {option} FILE.csv.")
    if output.exists():
        raise UsageError(f"{output} exists. Use a new file, so that no row is lost: {option} FILE.csv.")


def _check_target(target: str, values: set[str], labels: set[str]) -> None:
    """Raise if the sources have a target with values that are not labels: it is probably a different column."""
    if any(number_of(label) is not None for label in labels):
        return  # measured values differ from those of the source
    if labels and values and not values & labels:
        raise UsageError(
            f"The column {target!r} of the rows has {min(values)!r}, but the labels are "
            f"{', '.join(map(repr, sorted(labels)[:3]))}. Expected the target of the training: --target COLUMN."
        )


def _cells_by_title(content: bytes) -> dict[str, str]:
    row = TabularInput.decode_sample(content)
    return dict(zip(row.dtype.names or (), row.item(), strict=True))


def _in_order(row: Mapping[str, str], titles: list[str]) -> list[str]:
    """Return the cells of a row in the order of the titles; new titles are appended."""
    cells = [""] * len(titles)
    for title, cell in row.items():
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


def _write(file: Path, titles: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([titles, *rows])
    atomic_write(file, text.getvalue())
