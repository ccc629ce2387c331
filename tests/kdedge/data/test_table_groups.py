"""Rows of a table that stay in one split, since they have the same value in a column."""

from pathlib import Path

import pytest

import kdedge
from kdedge.data import index_dataset
from kdedge.data.dataset_options import DatasetOptions
from kdedge.data.readers.table_files import schema_of
from kdedge.data.row_samples import RowSample
from kdedge.data.splits import Split
from kdedge.data.table_schema import SCHEMA_FILE
from kdedge.modalities.tabular import TABULAR
from kdedge_runtime.errors import DataError, UsageError

HEADER = "patient,age,answer"
LINES = [f"{number // 4},{number},{'no' if number % 3 else 'yes'}" for number in range(120)]
BY_PATIENT = DatasetOptions(target="answer", group_by="patient")


def write(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join([HEADER, *lines]) + "\n", encoding="utf-8")
    return path


def patients(split: Split) -> set[str | None]:
    return {sample.row.cells[0] for sample in split.samples if isinstance(sample, RowSample)}


def test_no_group_is_divided(tmp_path: Path) -> None:
    path = write(tmp_path / "table.csv", LINES)
    index = index_dataset(path, BY_PATIENT)
    assert not patients(index.train) & patients(index.val)
    assert len(index.train) + len(index.val) == 120 and 24 <= len(index.val) <= 48
    alone = index_dataset(path, DatasetOptions(target="answer"))
    assert patients(alone.train) & patients(alone.val)


def test_group_is_no_input(tmp_path: Path) -> None:
    schema = schema_of(index_dataset(write(tmp_path / "table.csv", LINES), BY_PATIENT).train)
    assert [column.name for column in schema.used] == ["age"]


def test_numeric_targets_are_grouped(tmp_path: Path) -> None:
    path = write(tmp_path / "table.csv", [f"{number // 4},{number % 7},{number / 3}" for number in range(120)])
    index = index_dataset(path, DatasetOptions(target="answer", group_by="patient", task="regression"))
    assert len(index.val) and not patients(index.train) & patients(index.val)


def test_rows_without_a_group_are_reported(tmp_path: Path) -> None:
    index = index_dataset(write(tmp_path / "table.csv", [*LINES, ",7,no"]), BY_PATIENT)
    assert [skipped.name for skipped in index.skipped] == ["table.csv:121"]
    assert "patient" in index.skipped[0].reason


def test_divided_groups_of_given_splits_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", LINES[:90])
    write(tmp_path / "val.csv", LINES[90:])
    with pytest.raises(DataError, match="--group-by"):
        index_dataset(tmp_path, BY_PATIENT)
    write(tmp_path / "val.csv", LINES[92:])
    assert len(index_dataset(tmp_path, BY_PATIENT).val) == 28


def test_forms_of_a_number_are_one_group(tmp_path: Path) -> None:
    lines = [line.replace(",", ".0,", number % 2) for number, line in enumerate(LINES)]
    index = index_dataset(write(tmp_path / "table.csv", lines), BY_PATIENT)
    train, val = ({float(patient or "nan") for patient in patients(split)} for split in (index.train, index.val))
    assert val and not train & val


def test_group_as_the_only_input_is_refused(tmp_path: Path) -> None:
    lines = [f"{number // 4},{'no' if number % 3 else 'yes'}" for number in range(120)]
    path = tmp_path / "table.csv"
    path.write_text("\n".join(["patient,answer", *lines]) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match="no column to learn from"):
        index_dataset(path, BY_PATIENT)


def test_run_is_validated_on_a_table_without_groups(tmp_path: Path) -> None:
    index = index_dataset(write(tmp_path / "table.csv", LINES), BY_PATIENT)
    run = tmp_path / "run"
    run.mkdir()
    schema_of(index.train).write(run / SCHEMA_FILE)
    other = tmp_path / "other.csv"
    other.write_text("\n".join(["age,answer", *(line.partition(",")[2] for line in LINES)]) + "\n", encoding="utf-8")
    assert TABULAR.options_of_run(BY_PATIENT, run, str(tmp_path / "table.csv")).group_by == "patient"
    options = TABULAR.options_of_run(BY_PATIENT, run, str(other))
    assert options.group_by is None and len(index_dataset(other, options).val)


def test_trees_take_groups(tmp_path: Path) -> None:
    data = write(tmp_path / "table.csv", LINES)
    run = kdedge.train(data, "xgboost", output=tmp_path / "run", target="answer", group_by="patient", epochs=2)
    assert [column.name for column in run.record.input.features] == ["age"]  # type: ignore[attr-defined]


def test_unknown_column_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="clinic"):
        index_dataset(write(tmp_path / "table.csv", LINES), DatasetOptions(target="answer", group_by="clinic"))
