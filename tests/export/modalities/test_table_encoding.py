"""Encoding of rows in the graph, compared with plain loops."""

import math

import numpy as np
import pytest
import torch

from kdedge.data.table_columns import fit_column
from kdedge.data.table_schema import ColumnSchema
from kdedge_export.modalities import modality_of
from kdedge_export.modalities.table_encoding import TableEncoding
from kdedge_runtime.modalities.table_column import HIDDEN, TableColumn
from kdedge_runtime.modalities.tabular import TabularInput

INCOME = [f"{value:.2f}" for value in np.random.default_rng(0).gamma(2, 100, 90)] + ["", "NA"]
JOBS = (["none"] * 20 + ["clerk"] * 60 + ["?"] * 12)[:92]
SPEC = TabularInput(
    (
        fit_column(ColumnSchema("income", "numeric"), INCOME),
        fit_column(ColumnSchema("job", "categorical", categories=("clerk", "none")), JOBS),
        fit_column(ColumnSchema("same", "numeric"), ["7"] * 92),
        fit_column(ColumnSchema("full", "numeric"), [str(number % 9) for number in range(92)]),
    )
)


def encode(rows: np.ndarray) -> np.ndarray:
    return TableEncoding(SPEC)(torch.from_numpy(rows.astype(np.float32))).numpy()[:, :, 0]


def training_rows() -> np.ndarray:
    columns = [INCOME, JOBS, ["7"] * 92, [str(number % 9) for number in range(92)]]
    return np.array(
        [
            [column.value_of(cell) for column, cell in zip(SPEC.features, row, strict=True)]
            for row in zip(*columns, strict=True)
        ]
    )


def expected(column: TableColumn, value: float, parts: int, *, marks: bool) -> list[float]:
    """Encode one value as described in `TableColumn`."""
    known = math.isfinite(value) and (column.kind == "numeric" or value >= 0)
    found = []
    for place in range(parts):
        if not known or place >= column.parts:
            found.append(0.0)
        elif column.kind == "categorical":
            found.append(float(value == place) - column.reference[place])
        else:
            low, high = column.edges[place], column.edges[place + 1]
            share = (value - low) / (high - low)
            share = max(share, -1.0 if place == 0 else 0.0)
            share = min(share, 2.0 if place == column.parts - 1 else 1.0)
            found.append(share - column.reference[place])
    if marks:
        lost = math.isnan(value) or (column.kind == "categorical" and value < 0)
        found.append(float(lost) - column.missing if column.missing and value != HIDDEN else 0.0)
    return found


def test_encoding_equals_its_definition() -> None:
    rows = np.concatenate(
        [training_rows(), [[np.nan, -1, np.nan, np.nan], [1e6, 1, 0, -50], [-1e6, 0, 9, 50], [HIDDEN] * 4]]
    )
    encoding = TableEncoding(SPEC)
    assert encoding.parts == 16 and encoding.marks
    found = encode(rows)
    for row, coded in zip(rows, found, strict=True):
        for place, column in enumerate(SPEC.features):
            wanted = expected(column, float(np.float32(row[place])), encoding.parts, marks=True)
            np.testing.assert_allclose(coded[:, place], wanted, rtol=1e-3, atol=2e-5)


def test_average_of_the_training_rows_is_zero() -> None:
    np.testing.assert_allclose(encode(training_rows()).mean(axis=0), 0, atol=2e-4)


def test_hidden_values_are_the_reference() -> None:
    assert not encode(np.full((1, 4), HIDDEN)).any()
    row = training_rows()[0].astype(np.float32)
    keep = np.array([[[1, 0, 1, 0]]], np.float32)
    partly = encode(SPEC.mask(row, keep))[0]
    assert partly[:, 0].any() and not partly[:, [1, 3]].any()


def test_unknown_codes_and_infinities_are_missing() -> None:
    row = training_rows()[5]
    for place, values, missing in ((1, (7, 0.5, -2, -np.inf), -1), (0, (-np.inf,), np.nan)):
        wanted = np.where(np.arange(4) == place, missing, row)[None]
        for value in values:
            np.testing.assert_array_equal(encode(np.where(np.arange(4) == place, value, row)[None]), encode(wanted))
    rare = TabularInput((TableColumn("job", "categorical", None, (), ("a", "b", "c"), (0.5, 0.0, 0.5), 0.1),))
    found = TableEncoding(rare)(torch.tensor([[1.0], [-1.0], [0.0]]))
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def test_constant_column_has_no_effect() -> None:
    assert not encode(training_rows())[:, :, 2].any()
    assert SPEC.features[2].parts == 0


def test_corruptions_keep_categories_and_are_repeatable() -> None:
    corruptions, row = modality_of(SPEC).corruptions, training_rows()[5].astype(np.float32)
    for corrupt in corruptions.values():
        changed = np.stack([corrupt(row, number) for number in range(40)])
        np.testing.assert_array_equal(changed, np.stack([corrupt(row, number) for number in range(40)]))
        kept = changed[~np.isnan(changed[:, 1]), 1]
        assert set(kept) <= {row[1]} and len(np.unique(changed[:, 0])) > 1


@pytest.mark.parametrize("count", [1, 300])
def test_random_samples_cover_missing_values(count: int) -> None:
    rows = modality_of(SPEC).random_samples(SPEC, count, np.random.default_rng(0))
    assert rows.shape == (count, 4) and rows.dtype == np.float32 and np.isfinite(encode(rows)).all()
    if count > 1:
        assert np.isnan(rows[:, 0]).any() and set(rows[:, 1]) == {-1, 0, 1} and not np.isnan(rows[:, 2:]).any()
        assert rows[:, 3].min() < 0 and rows[:, 3].max() > 8
