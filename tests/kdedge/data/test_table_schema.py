"""Schemas of tables: inferred, written, edited and read again."""

import json
from pathlib import Path

import numpy as np
import pytest

from kdedge.data.table_columns import INTERVALS, fit_column
from kdedge.data.table_schema import ColumnSchema, TableTask, infer_schema, read_schema
from kdedge_runtime.errors import DataError, UsageError
from kdedge_runtime.util.table_rows import Row, read_csv_rows


def rows_of(text: str) -> list[Row]:
    return list(read_csv_rows(text.splitlines(keepends=True), "table"))


TABLE = "\n".join(
    ["id,age [years],job,empty,flag,answer"]
    + [
        f"p{number},{20 + number},{('a', 'b', '?')[number % 3]},,{number % 2},{'no' if number % 4 else 'yes'}"
        for number in range(120)
    ]
)


def test_kinds_are_inferred() -> None:
    schema = infer_schema(rows_of(TABLE), "answer", None, "table")
    assert [(column.name, column.kind) for column in schema.columns] == [
        ("id", "ignored"),
        ("age", "numeric"),
        ("job", "categorical"),
        ("empty", "ignored"),
        ("flag", "numeric"),
    ]
    age, job = schema.columns[1:3]
    assert (age.unit, age.low, age.high, age.missing) == ("years", 20, 139, 0)
    assert job.categories == ("a", "b") and job.missing == 40
    assert schema.labels == ("no", "yes") and schema.task == "classify"
    assert [column.name for column in schema.used] == ["age", "job", "flag"]


@pytest.mark.parametrize(
    ("values", "requested", "expected"),
    [
        ([1, 2, 3] * 20, None, "classify"),
        (range(60), None, "regression"),
        ([0.5, 1.5] * 30, None, "regression"),
        ([1, 2, 3] * 20, "regression", "regression"),
        (range(60), "classify", "classify"),
        (["a", "1"] * 30, None, "classify"),
    ],
)
def test_task_follows_from_the_target(values: list[object], requested: TableTask | None, expected: str) -> None:
    schema = infer_schema(rows_of("x,y\n" + "\n".join(f"1,{value}" for value in values)), "y", requested, "table")
    assert schema.task == expected
    if expected == "regression":
        assert schema.labels == ("y",)


def test_numeric_classes_are_in_the_order_of_numbers() -> None:
    assert infer_schema(rows_of("x,y\n1,10\n1,9\n1,2\n"), "y", None, "table").labels == ("2", "9", "10")


@pytest.mark.parametrize(
    ("target", "task", "message"),
    [
        ("nothing", None, "no column 'nothing'"),
        ("empty", None, "no values"),
        ("job", "regression", "'a'"),
    ],
)
def test_unusable_targets(target: str, task: TableTask | None, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        infer_schema(rows_of(TABLE), target, task, "table")
    with pytest.raises(DataError, match="single value 'yes'"):
        infer_schema(rows_of("x,y\n1,yes\n2,yes\n"), "y", None, "table")


def test_schema_is_kept_and_edited(tmp_path: Path) -> None:
    schema, path = infer_schema(rows_of(TABLE), "answer", None, "table"), tmp_path / "schema.json"
    schema.write(path)
    assert read_schema(path) == schema
    values = json.loads(path.read_text(encoding="utf-8"))
    values["columns"][4] |= {"kind": "categorical", "categories": ["1", "0"]}
    values["labels"] = ["yes", "no"]
    path.write_text(json.dumps(values), encoding="utf-8")
    edited = read_schema(path)
    assert edited.columns[4].categories == ("1", "0") and edited.labels == ("yes", "no")


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 2},
        {"task": "ranking"},
        {"labels": [1, 2]},
        {"columns": [{"name": "a", "kind": "date"}]},
        {"columns": [{"name": "a", "kind": "categorical"}]},
        {"columns": [{"name": "a", "kind": "numeric", "colour": 1}]},
        {"columns": [{"name": "a", "kind": "numeric"}, {"name": "a", "kind": "ignored"}]},
        {"columns": [{"name": "a", "kind": "categorical", "categories": [0, 1]}]},
        {"columns": [{"name": "a", "kind": "categorical", "categories": "01"}]},
        {"labels": ["a", "a"]},
        {"labels": ["a"]},
        {"labels": "ab"},
        {"task": "regression"},
    ],
)
def test_damaged_schemas_are_refused(tmp_path: Path, change: dict[str, object]) -> None:
    path = tmp_path / "schema.json"
    infer_schema(rows_of(TABLE), "answer", None, "table").write(path)
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | change), encoding="utf-8")
    with pytest.raises(UsageError, match="is not a schema"):
        read_schema(path)
    with pytest.raises(UsageError, match="cannot be read"):
        read_schema(tmp_path / "lost.json")


def test_intervals_hold_equal_shares_of_the_rows() -> None:
    numbers = np.random.default_rng(0).lognormal(0, 2, 4000)
    column = fit_column(ColumnSchema("a", "numeric"), [*map(str, numbers), *[""] * 1000])
    assert column.parts == INTERVALS and column.missing == pytest.approx(0.2)
    counts, _ = np.histogram(numbers, column.edges)
    np.testing.assert_allclose(counts, 4000 / INTERVALS, atol=2)
    assert (np.diff(column.reference) < 0).all(), "later intervals are reached by fewer rows"


def test_numbers_that_float32_merges_are_reported(caplog: pytest.LogCaptureFixture) -> None:
    fit_column(ColumnSchema("near", "numeric"), [f"{number}.25" for number in range(100)])
    assert not caplog.messages
    fit_column(ColumnSchema("time", "numeric"), [str(1700000000 + number) for number in range(100)])
    assert len(caplog.messages) == 1 and "'time'" in caplog.messages[0]


def test_frequencies_are_those_of_known_values() -> None:
    column = fit_column(ColumnSchema("a", "categorical", categories=("x", "y")), ["x", "y", "y", "", "z", "y"])
    assert column.reference == (0.25, 0.75) and column.missing == pytest.approx(2 / 6)
