"""Readers of tables: files, folders with splits, and rows that cannot be used."""

import json
from pathlib import Path

import numpy as np
import pytest

from kdedge.data import index_dataset
from kdedge.data.dataset_options import DatasetOptions
from kdedge.data.readers.table_files import is_table, schema_of
from kdedge.data.row_samples import RowSample
from kdedge_runtime.errors import DataError, UsageError

LINES = [f"{number},{'ab'[number % 2]},{'no' if number % 3 else 'yes'}" for number in range(60)]
ANSWER = DatasetOptions(target="answer")


def write(path: Path, lines: list[str], header: str = "age,job,answer") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


def test_rows_of_a_file_are_divided(tmp_path: Path) -> None:
    path = write(tmp_path / "table.csv", LINES)
    index = index_dataset(path, ANSWER)
    assert (index.modality, index.task, index.labels, index.split) == ("tabular", "classify", ("no", "yes"), "hashed")
    assert len(index.train) + len(index.val) == 60 and 5 <= len(index.val) <= 20
    names = {sample.name for part in (index.train, index.val) for sample in part.samples}
    assert len(names) == 60 and "table.csv:07" in names
    again = index_dataset(write(tmp_path / "other" / "table.csv", LINES), ANSWER)
    assert again.fingerprint == index.fingerprint and again.val.targets == index.val.targets
    changed = index_dataset(write(tmp_path / "table.csv", [*LINES[:-1], "60,a,yes"]), ANSWER)
    assert changed.fingerprint != index.fingerprint


def test_folder_has_its_own_splits(tmp_path: Path) -> None:
    for side, lines in {"train": LINES[:40], "validation": LINES[40:50], "test": LINES[50:]}.items():
        write(tmp_path / "data" / f"{side}.csv", lines)
    index = index_dataset(tmp_path / "data", ANSWER)
    assert index.split == "folders" and index.test is not None
    assert (len(index.train), len(index.val), len(index.test)) == (40, 10, 10)
    assert is_table(str(tmp_path / "data")) and not is_table(str(tmp_path))


def test_unusable_rows_are_reported(tmp_path: Path) -> None:
    for side in ("train", "val"):
        write(tmp_path / f"{side}.csv", LINES)
    write(tmp_path / "val.csv", [*LINES[:20], "old,a,no", "3,a", "4,a,", "5,a,perhaps", "6,z,yes"])
    index = index_dataset(tmp_path, ANSWER)
    assert len(index.val) == 21, "an unseen category is no reason to skip a row"
    reasons = {skipped.name: skipped.reason for skipped in index.skipped}
    assert reasons == {
        "val.csv:21": "without a number in age",
        "val.csv:22": "with a different number of cells",
        "val.csv:23": "without a target",
        "val.csv:24": "of the unknown class 'perhaps'",
    }


def test_edited_schema_is_used(tmp_path: Path) -> None:
    path, file = write(tmp_path / "table.csv", LINES), tmp_path / "schema.json"
    schema_of(index_dataset(path, ANSWER).train).write(file)
    values = json.loads(file.read_text(encoding="utf-8"))
    values["columns"][0]["kind"] = "ignored"
    values["labels"] = ["yes", "no"]
    file.write_text(json.dumps(values), encoding="utf-8")
    index = index_dataset(path, DatasetOptions(schema=str(file)))
    assert [column.name for column in schema_of(index.train).used] == ["job"] and index.labels == ("yes", "no")
    before = np.array(index_dataset(path, ANSWER).train.targets)
    np.testing.assert_array_equal(index.train.targets, 1 - before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "age"}, "--target is age"),
        ({"task": "regression"}, "--task is regression"),
    ],
)
def test_contradicting_options_are_refused(tmp_path: Path, options: dict[str, str], message: str) -> None:
    path, file = write(tmp_path / "table.csv", LINES), tmp_path / "schema.json"
    schema_of(index_dataset(path, ANSWER).train).write(file)
    with pytest.raises(UsageError, match=message):
        index_dataset(path, DatasetOptions(schema=str(file), **options))
    other = write(tmp_path / "other.csv", LINES, "age,work,answer")
    with pytest.raises(UsageError, match=r"'job', 'work'"):
        index_dataset(other, DatasetOptions(schema=str(file)))


def test_schema_has_its_own_hash_and_is_no_part_of_the_fingerprint(tmp_path: Path) -> None:
    path, file = write(tmp_path / "table.csv", LINES), tmp_path / "schema.json"
    index = index_dataset(path, ANSWER)
    schema_of(index.train).write(file)
    written = json.loads(file.read_text(encoding="utf-8"))
    again = index_dataset(path, DatasetOptions(schema=str(file)))
    assert (again.fingerprint, again.schema) == (index.fingerprint, index.schema)
    found = {again.schema}
    for change in (
        {"labels": ["yes", "no"]},
        {"columns": [written["columns"][0] | {"kind": "ignored"}, written["columns"][1]]},
    ):
        file.write_text(json.dumps(written | change), encoding="utf-8")
        changed = index_dataset(path, DatasetOptions(schema=str(file)))
        assert changed.fingerprint == index.fingerprint and changed.val.samples
        found.add(changed.schema)
    assert len(found) == 3


def validation_cells(path: Path, lines: list[str]) -> set[tuple[str | None, ...]]:
    samples = index_dataset(write(path, lines), ANSWER).val.samples
    return {sample.row.cells for sample in samples if isinstance(sample, RowSample)}


def test_split_of_a_row_depends_on_its_cells_alone(tmp_path: Path) -> None:
    lines = [f"{number},{'ab'[number % 2]},{'no' if number % 3 else 'yes'}" for number in range(999)]
    before = validation_cells(tmp_path / "a.csv", lines)
    assert validation_cells(tmp_path / "b.csv", [*lines[::-1], "1000,a,no", "1001,b,yes"]) >= before
    twice = index_dataset(write(tmp_path / "twice.csv", lines[:60] * 2), ANSWER)
    sides = [
        {each.row.cells for each in part.samples if isinstance(each, RowSample)} for part in (twice.train, twice.val)
    ]
    assert sides[1] and not sides[0] & sides[1]


def test_validation_rows_do_not_shape_the_schema(tmp_path: Path) -> None:
    lines = [f"{number},{'ab'[number % 2]},{'no' if number % 3 else 'yes'}" for number in range(200)]
    cells = validation_cells(tmp_path / "table.csv", lines)
    for number in range(1000, 1100):  # until a changed row is for validation
        changed = f"{number},zz,no"
        index = index_dataset(write(tmp_path / "table.csv", [*lines, changed]), ANSWER)
        if tuple(changed.split(",")) in {each.row.cells for each in index.val.samples if isinstance(each, RowSample)}:
            break
    schema = schema_of(index.train)
    assert schema.columns[1].categories == ("a", "b") and schema.columns[0].high is not None
    assert schema.columns[0].high < 200 and len(index.val) == len(cells) + 1


def test_one_bad_cell_does_not_ignore_a_column(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lines = [f"{number / 7:.4f},{number} EUR,{'no' if number % 3 else 'yes'}" for number in range(300)]
    index = index_dataset(write(tmp_path / "table.csv", ["inf,1 EUR,no", *lines]), ANSWER)
    assert [column.kind for column in schema_of(index.train).columns] == ["numeric", "ignored"]
    assert [skipped.reason for skipped in index.skipped] == ["without a number in age"]
    assert len(caplog.messages) == 1 and "'job'" in caplog.messages[0] and "EUR" in caplog.messages[0]


def test_units_of_all_splits_are_compared(tmp_path: Path) -> None:
    lines = [f"{number},{number * 1.5}" for number in range(60)]
    for title in ("age [months],amount [EUR]", "age [years],amount [USD]"):
        write(tmp_path / "train.csv", lines, "age [years],amount [EUR]")
        write(tmp_path / "val.csv", lines, title)
        with pytest.raises(UsageError, match=r"in (months|USD)"):
            index_dataset(tmp_path, DatasetOptions(target="amount"))


def test_target_is_the_exact_title(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", [f"{n},{n * 1.5},{n % 7}" for n in range(60)], "amount [kg],amount [EUR],x")
    index = index_dataset(path, DatasetOptions(target="amount [EUR]"))
    schema = schema_of(index.train)
    assert schema.target == "amount [EUR]" and [column.unit for column in schema.columns] == ["kg", None]
    assert set(index.train.targets) & {1.5, 4.5, 7.5, 10.5, 13.5}
    with pytest.raises(UsageError, match="differ only in their units"):
        index_dataset(path, DatasetOptions(target="amount"))
    with pytest.raises(UsageError, match=r"more than once|differ only"):
        index_dataset(path, DatasetOptions(target="x"))


def test_bad_tables(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no table"):
        index_dataset(tmp_path / "lost.csv", ANSWER)
    with pytest.raises(DataError, match="no rows"):
        index_dataset(write(tmp_path / "empty.csv", []), ANSWER)
    with pytest.raises(DataError, match="a different number of cells"):
        index_dataset(write(tmp_path / "short.csv", ["1,2", "3,4"]), ANSWER)
    for name in ("train.csv", "training.tsv"):
        write(tmp_path / "two" / name, LINES)
    with pytest.raises(DataError, match="for the same split"):
        index_dataset(tmp_path / "two", ANSWER)
    with pytest.raises(UsageError, match="--window does not apply"):
        index_dataset(write(tmp_path / "table.csv", LINES), DatasetOptions(target="answer", window="1s"))
