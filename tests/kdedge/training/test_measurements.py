"""Measurements on a few batches before training."""

import pytest

from kdedge.training.measurements import balanced_weights


def test_unweighted_term_equals_the_sum_of_the_others() -> None:
    weights = balanced_weights({"ce": 0.5, "kd": 2.0, "at": None}, [4.0, 3.0, 0.01])
    assert weights == {"ce": 0.5, "kd": 2.0, "at": pytest.approx((0.5 * 4 + 2 * 3) / 0.01)}


def test_several_unweighted_terms_equal_the_sum_of_the_others() -> None:
    weights = balanced_weights({"ce": 1.0, "at": None, "hint": None}, [2.0, 1e-3, 50.0])
    assert weights["at"] * 1e-3 == pytest.approx(2.0)
    assert weights["hint"] * 50.0 == pytest.approx(2.0)


def test_terms_without_any_weight_are_scaled_to_one() -> None:
    weights = balanced_weights({"at": None, "cat": None}, [0.02, 5.0])
    assert weights == {"at": pytest.approx(50), "cat": pytest.approx(0.2)}


def test_zero_term_gets_a_finite_weight() -> None:
    assert 0 < balanced_weights({"ce": 1.0, "at": None}, [2.0, 0.0])["at"] < float("inf")


def test_weights_have_three_digits() -> None:
    assert balanced_weights({"ce": 1.0, "at": None}, [1.0, 0.00123456])["at"] == 810
