"""Agreement of predictions compared with hand-computed values, and at edge cases."""

import math

import numpy as np
import pytest
from toy_maps import Score, check_each_image_alone, random_maps

from kdedge_export.metrics import agreement


def distance(reference: np.ndarray, candidate: np.ndarray) -> np.ndarray:
    """Compute the distance of logits without their mean, as for classification."""
    return agreement.distance(agreement.centered(reference), agreement.centered(candidate))


def test_drop_of_exactly_one_point_is_exact() -> None:
    lost = np.zeros(700)
    lost[:10], lost[-3:] = 1.0, -1.0
    assert agreement.accuracy_drop(lost) == 1.0


@pytest.mark.parametrize("constant_ones", [False, True])
@pytest.mark.parametrize(
    "score",
    [
        lambda a, b: agreement.logits_error(a[:, 0], b[:, 0]),
        lambda a, b: distance(a[:, 0], b[:, 0]),
        lambda a, b: agreement.kl_divergence(a[:, 0], b[:, 0] / 100),
        lambda a, b: agreement.top1(b[:, 0]),
        lambda a, b: agreement.agrees(a[:, 0], b[:, 0]),
        lambda a, b: agreement.is_right(b[:, 0], np.full(len(b), 2)),
    ],
)
def test_score_of_an_image_does_not_depend_on_others(score: Score, constant_ones: bool) -> None:
    check_each_image_alone(score, constant_ones)


class TestPredictions:
    LOGITS = np.array([[2.0, 1.0], [0.0, 3.0], [5.0, 4.0], [1.0, 9.0]], dtype=np.float32)

    def test_accuracy_counts_top_classes_equal_to_the_target(self) -> None:
        assert agreement.top1_accuracy(self.LOGITS, np.array([0, 1, 1, 0])) == 0.5
        assert agreement.is_right(self.LOGITS, np.array([0, 1, 1, 0])).sum() == 2

    def test_agreement_counts_equal_top_classes(self) -> None:
        other = self.LOGITS.copy()
        other[0] = [0.0, 1.0]
        assert agreement.agreement(self.LOGITS, other) == 0.75

    def test_non_finite_logits_are_no_prediction_and_never_agree(self) -> None:
        broken = np.full((2, 3), np.nan, dtype=np.float32)
        assert agreement.top1(broken).tolist() == [-1, -1]
        assert agreement.agreement(broken, broken) == 0.0
        assert agreement.top1_accuracy(broken, np.array([0, 0])) == 0.0

    def test_dtypes_of_predictions_and_flags(self) -> None:
        assert agreement.top1(self.LOGITS).dtype == np.int64
        assert agreement.is_right(self.LOGITS, np.array([0, 1, 1, 0])).dtype == np.float64
        assert agreement.agrees(self.LOGITS, self.LOGITS).dtype == np.float64

    def test_prediction_missing_in_one_model_disagrees(self) -> None:
        broken = self.LOGITS.copy()
        broken[0, 1] = np.inf
        assert agreement.top1(broken).tolist() == [-1, 1, 0, 1]
        assert agreement.agrees(broken, broken).tolist() == [0, 1, 1, 1]
        assert agreement.agrees(self.LOGITS, broken).tolist() == [0, 1, 1, 1]

    def test_logits_error_is_relative_to_their_range(self) -> None:
        moved = self.LOGITS + np.array([[0.25, 0], [0, -1.5], [0.1, 0.3], [0, 0]], dtype=np.float32)
        assert agreement.logits_error(self.LOGITS, moved) == pytest.approx([0.25, 0.5, 0.3, 0], rel=1e-5)

    def test_kl_divergence_matches_a_hand_computed_value(self) -> None:
        # p = (1/2, 1/2), q = (1/4, 3/4): 1/2 ln 2 + 1/2 ln 2/3.
        reference = np.zeros((1, 2), dtype=np.float32)
        candidate = np.log(np.array([[0.25, 0.75]], dtype=np.float32))
        expected = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)
        assert agreement.kl_divergence(reference, candidate)[0] == pytest.approx(expected, rel=1e-6)

    def test_kl_divergence_ignores_an_offset_and_handles_large_logits(self) -> None:
        logits = np.array([[1000.0, 999.0], [-1000.0, 0.0]], dtype=np.float32)
        assert agreement.kl_divergence(logits, logits + 7) == pytest.approx([0.0, 0.0])


class TestDistance:
    def test_distance_is_the_difference_over_the_sum_of_norms(self) -> None:
        # After subtracting the mean: (-3, 3) and (-1, 1); (2, -2, 0) and (2, 0, -2).
        reference = np.array([[1, 7, 4], [3, -1, 1]], dtype=np.float32)
        candidate = np.array([[11, 13, 12], [2, 0, -2]], dtype=np.float32)
        assert distance(reference, candidate) == pytest.approx([2 / 4, 0.5], rel=1e-6)

    @pytest.mark.parametrize(("factor", "expected"), [(1, 0), (3, 0.5), (0.1, 0.9 / 1.1), (-1, 1)])
    def test_distance_depends_on_the_scale(self, factor: float, expected: float) -> None:
        logits = random_maps(6, 14, 1, 5)[:, 0].astype(np.float64)
        assert distance(logits, factor * logits + 5) == pytest.approx(np.full(6, expected), abs=1e-9)

    def test_distance_of_constant_logits_is_zero(self) -> None:
        flat = np.full((1, 3), 2.0, dtype=np.float32)
        assert distance(flat, flat) == 0
        assert distance(flat, np.array([[1.0, 2.0, 3.0]], dtype=np.float32)) == 1

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_non_finite_logits_have_the_largest_distance(self, value: float) -> None:
        broken = np.array([[1.0, value, 0.0]])
        with np.errstate(invalid="ignore"):
            assert distance(broken, np.array([[1.0, 2.0, 0.0]])) == 1
