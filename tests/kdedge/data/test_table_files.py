"""Readers of tables: files, folders with splits, and rows that cannot be used."""

import json
from pathlib import Path

import numpy as np
import pytest

from kdedge.data import index_dataset
from kdedge.data.dataset_options import DatasetOptions
from kdedge.data.readers.table_files import is_table, schema_of
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
        "val.csv:22": "with another number of cells",
        "val.csv:23": "without a known target",
        "val.csv:24": "without a known target",
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


def test_bad_tables(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no table"):
        index_dataset(tmp_path / "lost.csv", ANSWER)
    with pytest.raises(DataError, match="no rows"):
        index_dataset(write(tmp_path / "empty.csv", []), ANSWER)
    with pytest.raises(UsageError, match="--group-by does not apply"):
        index_dataset(write(tmp_path / "table.csv", LINES), DatasetOptions(target="answer", group_by="x"))
