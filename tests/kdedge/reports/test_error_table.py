"""Errors of regressions by the measured value, compared with scikit-learn."""

import math

import numpy as np
import pytest
from compare_toys import prices
from sklearn.metrics import mean_absolute_error

from kdedge.reports.error_table import ErrorRow, error_rows, quantile_groups


def test_errors_are_those_of_scikit_learn_in_each_range() -> None:
    rng = np.random.default_rng(0)
    runs = [prices(name, rng.normal(0, 30, 64).tolist()) for name in "ab"]
    measured = runs[0].samples.targets
    every, *ranges = error_rows(runs)
    assert (every.low, every.high, every.samples) == (100, 6400, 64)
    assert [row.samples for row in ranges] == [13, 13, 13, 13, 12]
    for row in (every, *ranges):
        some = (measured >= row.low) & (measured <= row.high)
        assert some.sum() == row.samples
        expected = [mean_absolute_error(measured[some], one.predictions.logits[some, 0]) for one in runs]
        np.testing.assert_allclose(row.errors, expected, rtol=1e-5)
        assert row.changes == (row.errors[1] - row.errors[0],)


def test_change_has_the_full_color_from_half_the_error_on() -> None:
    assert ErrorRow(0, 1, 2, (10.0, 12.0, 4.0, math.nan)).tints == (40, 100, 0)
    assert ErrorRow(0, 1, 2, (0.0, 0.0, 1.0)).tints == (0, 100)


def test_few_rows_are_not_divided() -> None:
    assert len(error_rows([prices("a", [1.0] * 19)])) == 1
    assert [row.label for row in error_rows([prices("a", [1.0] * 20)])] == [
        "100 … 2,000",
        "100 … 1,000",
        "1,100 … 2,000",
    ]


@pytest.mark.parametrize(
    ("sample", "expected"),
    [
        ([0.0] * 40 + list(range(1, 21)), [(0, 0)] * 40 + [(1, 8)] * 8 + [(9, 20)] * 12),
        (list(range(20)) + [50.0] * 30, [(0, 9)] * 10 + [(10, 19)] * 10 + [(50, 50)] * 30),
        ([3.0] * 50, [(3, 3)] * 50),
    ],
)
def test_equal_values_are_in_one_range(sample: list[float], expected: list[tuple[float, float]]) -> None:
    array = np.float32(sample)
    groups = quantile_groups(array)
    found = [(array[groups == group].min(), array[groups == group].max()) for group in groups]
    assert found == expected
