"""Input of tables: rows are matched by name, and nothing is invented."""

import json
import math
from dataclasses import asdict, replace

import numpy as np
import pytest

from kdedge_runtime.errors import UnreadableSample, UsageError
from kdedge_runtime.modalities import parse_input
from kdedge_runtime.modalities.table_column import HIDDEN, TableColumn, join_unit, row_sample, split_unit
from kdedge_runtime.modalities.tabular import TabularInput

SPEC = TabularInput(
    (
        TableColumn("income", "numeric", "EUR", (0.0, 1000.0, 4000.0), (), (0.6, 0.2), 0.1),
        TableColumn("job", "categorical", None, (), ("none", "clerk"), (0.25, 0.75)),
        TableColumn("age", "numeric", None, (18.0, 80.0), (), (0.4,)),
    )
)
HEADER = ("age", "x", "job", "income [EUR]")


def test_columns_are_matched_by_name_in_any_order() -> None:
    np.testing.assert_array_equal(SPEC.preprocess(row_sample(HEADER, ("30", "9", "clerk", "2500"))), [2500, 1, 30])
    plain = row_sample(("job", "income", "age"), ("none", "0", "1e2"))
    np.testing.assert_array_equal(SPEC.preprocess(plain), [0, 0, 100])


@pytest.mark.parametrize("cell", ["", " ", "NA", "nan", "null", "N/A", "?", None])
def test_missing_cells_are_no_numbers(cell: str | None) -> None:
    values = SPEC.preprocess(row_sample(HEADER, (cell, None, cell, cell)))
    np.testing.assert_array_equal(values, np.float32([math.nan, -1, math.nan]))


@pytest.mark.parametrize("cell", ["inf", "-inf", "1e300", "Infinity", "0x10", "1_000", "12 EUR", "١٢", "1,5"])
def test_other_cells_of_numbers_are_refused(cell: str) -> None:
    with pytest.raises(UnreadableSample, match=r"income \[EUR\]") as error:
        SPEC.preprocess(row_sample(HEADER, ("30", "", "clerk", cell)))
    assert error.value.fault == "no number in income"


def test_unseen_categories_are_missing_and_named() -> None:
    row = row_sample(HEADER, ("30", "", "pilot", "1"))
    assert SPEC.preprocess(row)[1] == -1 and SPEC.unseen(row) == {"job": "pilot"}
    assert SPEC.unseen(row_sample(HEADER, ("30", "", "", "1"))) == {}


def test_arrays_have_finite_numbers_and_known_codes() -> None:
    np.testing.assert_array_equal(SPEC.preprocess(np.float32([1, -1, np.nan])), np.float32([1, -1, np.nan]))
    for values in ([math.inf, 0, 1], [1, 2, 1], [1, 0.5, 1], [1, -2, 1], [1, 0, -math.inf]):
        with pytest.raises(UnreadableSample, match="Expected"):
            SPEC.preprocess(np.float32(values))


def test_category_without_training_rows_is_unseen() -> None:
    spec = TabularInput((TableColumn("job", "categorical", None, (), ("none", "pilot", "clerk"), (0.25, 0.0, 0.75)),))
    row = row_sample(("job",), ("pilot",))
    assert spec.preprocess(row)[0] == -1 and spec.unseen(row) == {"job": "pilot"}
    unknown = replace(spec.features[0], reference=(0.0, 0.0, 0.0))  # of a file of another program
    assert TabularInput((unknown,)).preprocess(row)[0] == 1


def test_forms_of_a_value_are_one_category() -> None:
    column = TableColumn("a", "categorical", None, (), ("1", "True", "01x"), (0.2, 0.3, 0.5))
    assert [column.value_of(cell) for cell in ("1", "1.0", "1e0", "true", "TRUE", "01x", "2", "1x")] == [
        0, 0, 0, 1, 1, 2, -1, -1,
    ]  # fmt: skip


def test_values_are_restored_from_reasons_and_stored_rows() -> None:
    spec = TabularInput(
        (TableColumn("state", "categorical", None, (), ("missing", "ok"), (0.5, 0.5)), SPEC.features[2])
    )
    number = float(np.nextafter(np.float32(16777215), np.float32(0)))
    row = np.float32([0, number])
    found = {reason["column"]: reason["value"] for reason in spec.reasons(row, np.float32([[2, 1]]), 2)}
    assert found == {"state": "missing", "age": number}
    assert spec.encode_sample(row).decode().splitlines()[1] == f"missing,{number}"


def test_columns_that_differ_in_their_units_are_ambiguous() -> None:
    header = ("income [USD]", "job", "age", "income [EUR]")
    assert SPEC.preprocess(row_sample(header, ("1", "", "30", "2")))[0] == 2, "the exact title comes first"
    with pytest.raises(UsageError, match="differ only in their units"):
        SPEC.preprocess(row_sample((*header[:3], "income [CHF]"), ("1", "", "30", "2")))


def test_missing_column_is_an_error() -> None:
    with pytest.raises(UsageError, match=r"'income', 'job'.*any order"):
        SPEC.preprocess(row_sample(("age",), ("30",)))
    with pytest.raises(UsageError, match=r"no column 'income'\. There is 'incomes'\."):
        SPEC.preprocess(row_sample(("age", "incomes [EUR]", "job"), ("30", "1", "clerk")))


def test_another_unit_is_an_error() -> None:
    with pytest.raises(UsageError, match=r"'income' is in USD.*EUR"):
        SPEC.preprocess(row_sample(("age", "job", "income [USD]"), ("30", "clerk", "1")))
    with pytest.raises(UnreadableSample, match="2 cells"):
        row_sample(("a", "b", "c"), ("1", "2"))
    for row in (np.zeros(2, np.float32), np.array(["1", "clerk", "30"])):
        with pytest.raises(UnreadableSample, match="Expected 3 numbers"):
            SPEC.preprocess(row)


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("age [years]", ("age", "years")),
        (" age ", ("age", None)),
        ("[x]", ("[x]", None)),
        ("a [b] [c]", ("a [b]", "c")),
    ],
)
def test_units_are_in_brackets(title: str, expected: tuple[str, str | None]) -> None:
    assert split_unit(title) == expected
    assert split_unit(join_unit(*expected)) == expected


def test_metadata_is_restored() -> None:
    scaled = replace(SPEC, scale=(2.0, 3.0))
    for spec in (SPEC, scaled):
        assert parse_input(json.loads(json.dumps(asdict(spec)))) == spec
    assert SPEC.preprocessing_id != replace(SPEC, features=SPEC.features[::-1]).preprocessing_id
    assert SPEC.shape == (3,) and SPEC.summary == "3 columns" and SPEC.positions((1, 3)) >= 3


@pytest.mark.parametrize(
    "change",
    [
        {"edges": [1, 1]},
        {"edges": [2, 1]},
        {"edges": [0, math.nan, 4]},
        {"reference": [0.5]},
        {"kind": "date"},
        {"missing": 2},
        {"name": 3},
    ],
)
def test_damaged_columns_are_refused(change: dict[str, object]) -> None:
    values = json.loads(json.dumps(asdict(SPEC)))
    values["features"][0] |= change
    with pytest.raises((ValueError, TypeError)):
        parse_input(values)


def test_damaged_metadata_is_refused() -> None:
    values = json.loads(json.dumps(asdict(SPEC)))
    twice = [values["features"][0]] * 2
    for change in ({"features": []}, {"features": twice}, {"scale": [0, 0]}, {"scale": [0, 1e999]}):
        with pytest.raises(ValueError, match=r"names|scale"):
            parse_input(values | change)


def test_mask_hides_whole_columns() -> None:
    row = np.float32([2500, 1, 30])
    keep = np.array([[[1.0, 0.6, 0.4]], [[0.0, 0.0, 1.0]]], np.float32)
    np.testing.assert_array_equal(SPEC.mask(row, keep), np.float32([[2500, 1, HIDDEN], [HIDDEN, HIDDEN, 30]]))
    np.testing.assert_array_equal(SPEC.mask(row, keep, np.float32([7, 0, 9]))[0], [2500, 1, 9])
    np.testing.assert_array_equal(SPEC.segments(row, 10), [[0, 1, 2]])
    np.testing.assert_array_equal(SPEC.segments(row, 2), [[0, 0, 1]])


def test_reasons_are_sorted_by_magnitude() -> None:
    row = row_sample(HEADER, ("30", "", "pilot", "2500"))
    reasons = SPEC.reasons(row, np.float32([[0.25, -1.5, 0.5]]), 2)
    assert reasons == [
        {"column": "job", "value": None, "contribution": -1.5},
        {"column": "age", "value": 30.0, "contribution": 0.5},
    ]
    assert SPEC.reasons(row, np.float32([[9, 0, 0]]), 1) == [
        {"column": "income", "value": 2500.0, "unit": "EUR", "contribution": 9.0}
    ]


def test_spread_of_contributions() -> None:
    even = SPEC.map_stats(np.float32([[1, 1, 1]]), np.zeros(3), (0, 0))
    single = SPEC.map_stats(np.float32([[0, 3, -9]]), np.zeros(3), (0, 0))
    assert even.entropy == pytest.approx(1) and single.entropy == pytest.approx(0)
    assert single.cx is None and single.area == pytest.approx(1 / 3)
    assert SPEC.map_stats(np.float32([[-1, 0, -1]]), np.zeros(3), (0, 0)).entropy is None


def test_rows_are_stored_as_csv() -> None:
    row = row_sample(HEADER, ("30", "", 'a, "b"', None))
    assert SPEC.sample_suffix == ".csv"
    assert SPEC.encode_sample(row).decode() == 'age,x,job,income [EUR]\r\n30,,"a, ""b""",\r\n'
    known = SPEC.encode_sample(np.float32([2500.5, 1, np.nan])).decode()
    assert known == "income [EUR],job,age\r\n2500.5,clerk,\r\n"


def test_reference_samples_differ_and_are_valid() -> None:
    first, second = SPEC.reference_sample(0), SPEC.reference_sample(1)
    assert np.isfinite(first).all() and not np.array_equal(first, second) and set(first[[1]]) <= {0.0, 1.0}
