"""Rows without a target that join a table."""

from pathlib import Path

import pytest

from kdedge.data import UNLABELED, index_dataset
from kdedge.data.dataset_options import DatasetOptions
from kdedge.data.row_samples import RowSample
from kdedge.training.unlabeled_samples import add_unlabeled
from kdedge_runtime.errors import DataError, UsageError
from kdedge_runtime.util.progress import no_progress

LABELED = [f"{number},{'ab'[number % 2]},{'no' if number % 3 else 'yes'}" for number in range(60)]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write(tmp_path / "table.csv", "age,job,answer", LABELED)


def write(path: Path, header: str, lines: list[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


def added(table: Path, *locations: Path) -> tuple[list[str], dict[str, int]]:
    """Return the names of the added rows, and the numbers of dropped ones."""
    index = index_dataset(table, DatasetOptions(target="answer"))
    dataset, part = add_unlabeled(index, [str(each) for each in locations], None, no_progress)
    assert part is not None
    names = [sample.name for sample, target in dataset.train.pairs() if target == UNLABELED]
    found = part.selection
    dropped = {"duplicates": found.duplicates, "held_out": found.held_out, "faulty": len(found.problems.skipped)}
    return names, dropped


def test_rows_join_in_any_order_of_columns(table: Path, tmp_path: Path) -> None:
    more = write(tmp_path / "more" / "new.csv", "job,town,age", ["a,Ulm,100", "b,Ulm,101", "b,Bonn,oops"])
    names, dropped = added(table, more)
    assert names == ["more/new.csv:1", "more/new.csv:2"]
    assert dropped == {"duplicates": 0, "held_out": 0, "faulty": 1}


def test_copies_of_labeled_rows_are_dropped_whatever_their_answer(table: Path, tmp_path: Path) -> None:
    index = index_dataset(table, DatasetOptions(target="answer"))
    ages = {
        side: next(sample.row.cells[0] for sample in split.samples if isinstance(sample, RowSample))
        for side, split in (("train", index.train), ("val", index.val))
    }
    rows = [f"{age},{'ab'[int(age or 0) % 2]},maybe" for age in ages.values()]
    names, dropped = added(table, write(tmp_path / "copies.csv", "age,job,answer", [*rows, "100,a,", "100,a,no"]))
    assert len(names) == 1 and dropped == {"duplicates": 2, "held_out": 1, "faulty": 0}


def test_copies_are_recognized_in_any_form_of_numbers(table: Path, tmp_path: Path) -> None:
    """Parquet and CSV write the same value as 7.0 and 7."""
    copies = [f"{number}.0, {'ab'[number % 2]}" for number in range(60)]
    with pytest.raises(DataError, match="adds anything"):
        added(table, write(tmp_path / "copies.csv", "age,job", copies))


def test_several_tables(table: Path, tmp_path: Path) -> None:
    files = [write(tmp_path / "more" / f"{number}.tsv", "age\tjob", [f"{100 + number}\ta"]) for number in range(2)]
    names, _ = added(table, *files)
    assert names == ["more/0.tsv:1", "more/1.tsv:1"]


def test_tables_without_an_input_column_are_refused(table: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="job"):
        added(table, write(tmp_path / "more.csv", "age", ["1"]))
    with pytest.raises(DataError, match="is not a table"):
        added(table, tmp_path / "none.csv")


def test_sounds_do_not_join_a_table(table: Path, tmp_path: Path) -> None:
    (tmp_path / "sounds").mkdir()
    (tmp_path / "sounds" / "a.wav").write_bytes(b"RIFF")
    with pytest.raises(UsageError, match="audio"):
        added(table, tmp_path / "sounds")
