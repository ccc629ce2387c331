"""Metrics compared with independent computations, and at edge cases."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from kdedge_export.metrics import agreement
from kdedge_export.metrics.resampling import area_mean, to_common_size
from kdedge_runtime.boxes import box_mask


def random_maps(n: int, seed: int, height: int = 7, width: int = 7) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, height, width)).astype(np.float32)


def test_drop_of_exactly_one_point_is_exact() -> None:
    lost = np.zeros(700)
    lost[:10], lost[-3:] = 1.0, -1.0
    assert agreement.accuracy_drop(lost) == 1.0


def scaled_maps(seed: int) -> np.ndarray:
    """Five maps of different scales and offsets: one of small numbers, one constant, one large, one negative."""
    maps = random_maps(5, seed, 3, 4) * np.float32([1, 1e-3, 0, 500, 2])[:, None, None]
    return maps + np.float32([0, 1e-3, 4, 100, -9])[:, None, None]


@pytest.mark.parametrize("constant_ones", [False, True])
@pytest.mark.parametrize(
    "score",
    [
        agreement.map_pearson,
        agreement.map_error,
        agreement.scale_error,
        agreement.topk_iou,
        lambda a, b: agreement.is_constant(b),
        lambda a, b: agreement.pointing_game(b, a > 0.5),
        lambda a, b: agreement.energy_inside(b, a > 0.5),
        lambda a, b: agreement.logits_error(a[:, 0], b[:, 0]),
        lambda a, b: agreement.distance(a[:, 0], b[:, 0]),
        lambda a, b: agreement.kl_divergence(a[:, 0], b[:, 0] / 100),
        lambda a, b: agreement.top1(b[:, 0]),
        lambda a, b: agreement.agrees(a[:, 0], b[:, 0]),
        lambda a, b: agreement.is_right(b[:, 0], np.full(len(b), 2)),
    ],
)
def test_score_of_an_image_does_not_depend_on_others(
    score: Callable[[np.ndarray, np.ndarray], np.ndarray], constant_ones: bool
) -> None:
    a, b = scaled_maps(20), scaled_maps(21)[::-1].copy()
    if constant_ones:
        a[1], b[1] = 3, 7
    b[0, 0, 0] = np.nan
    each = np.concatenate([score(a[[index]], b[[index]]) for index in range(len(a))])
    assert score(a, b) == pytest.approx(each, rel=1e-9, nan_ok=True)
    assert score(a, b).shape == (len(a),)


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
        assert agreement.distance(reference, candidate) == pytest.approx([2 / 4, 0.5], rel=1e-6)

    @pytest.mark.parametrize(("factor", "expected"), [(1, 0), (3, 0.5), (0.1, 0.9 / 1.1), (-1, 1)])
    def test_distance_depends_on_the_scale(self, factor: float, expected: float) -> None:
        logits = random_maps(6, 14, 1, 5)[:, 0].astype(np.float64)
        assert agreement.distance(logits, factor * logits + 5) == pytest.approx(np.full(6, expected), abs=1e-9)

    def test_distance_of_constant_logits_is_zero(self) -> None:
        flat = np.full((1, 3), 2.0, dtype=np.float32)
        assert agreement.distance(flat, flat) == 0
        assert agreement.distance(flat, np.array([[1.0, 2.0, 3.0]], dtype=np.float32)) == 1

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_non_finite_logits_have_the_largest_distance(self, value: float) -> None:
        broken = np.array([[1.0, value, 0.0]])
        with np.errstate(invalid="ignore"):
            assert agreement.distance(broken, np.array([[1.0, 2.0, 0.0]])) == 1


class TestScaleError:
    def test_scale_error_is_the_relative_difference_of_norms(self) -> None:
        # Norms 5 and 4, 13 and 26, 0 and 3, 0 and 0.
        a = np.array([[[3, 4]], [[5, 12]], [[0, 0]], [[0, 0]]], dtype=np.float32)
        b = np.array([[[4, 0]], [[26, 0]], [[0, 3]], [[0, 0]]], dtype=np.float32)
        assert agreement.scale_error(a, b) == pytest.approx([0.2, 0.5, 1, 0])
        assert agreement.scale_error(b, a) == pytest.approx([0.2, 0.5, 1, 0])

    def test_non_finite_map_has_the_largest_scale_error(self) -> None:
        a = random_maps(1, 15)
        assert agreement.scale_error(a, a * np.float32(np.nan)) == 1


class TestSummaries:
    SCORES = np.array([4.0, np.nan, 1.0, 3.0, 2.0, 5.0])

    def test_images_without_a_score_are_ignored(self) -> None:
        assert agreement.mean(self.SCORES) == 3
        assert agreement.percentile(self.SCORES, 25) == 2
        assert agreement.percentile(self.SCORES, 90) == pytest.approx(4.6)

    @pytest.mark.filterwarnings("error")
    def test_no_scores_give_nan(self) -> None:
        none = np.full(3, np.nan)
        assert math.isnan(agreement.mean(none))
        assert math.isnan(agreement.percentile(none, 5))


class TestPearson:
    def test_correlation_stays_within_its_range(self) -> None:
        a = random_maps(2000, 16).astype(np.float64)
        scales = np.random.default_rng(17).uniform(0.1, 10, (2000, 1, 1))
        assert agreement.map_pearson(a, scales * a).max() <= 1
        assert agreement.map_pearson(a, -scales * a).min() >= -1

    def test_nearly_constant_map_has_no_correlation(self) -> None:
        noisy = np.float32(0.1) + random_maps(1, 5) * np.float32(1e-8)
        assert np.ptp(noisy) > 0
        assert np.isnan(agreement.map_pearson(noisy, random_maps(1, 6))).all()
        assert np.isnan(agreement.map_pearson(random_maps(1, 6), noisy)).all()

    def test_correlation_matches_numpy(self) -> None:
        a, b = random_maps(20, 0), random_maps(20, 1)
        expected = [np.corrcoef(x.ravel(), y.ravel())[0, 1] for x, y in zip(a, b, strict=True)]
        assert agreement.map_pearson(a, b) == pytest.approx(expected, abs=1e-12)

    def test_correlation_ignores_scale_and_offset_but_not_sign(self) -> None:
        a = random_maps(5, 2)
        assert agreement.map_pearson(a, 3 * a + 100) == pytest.approx(np.ones(5), abs=1e-6)
        assert agreement.map_pearson(a, -a) == pytest.approx(-np.ones(5))

    @pytest.mark.parametrize("value", [0.0, 5.0, -1e-20])
    def test_constant_map_has_no_correlation(self, value: float) -> None:
        flat = np.full((1, 7, 7), value, dtype=np.float32)
        assert np.isnan(agreement.map_pearson(random_maps(1, 3), flat)).all()
        assert np.isnan(agreement.map_pearson(flat, random_maps(1, 3))).all()

    def test_map_with_nan_has_no_correlation_and_is_not_constant(self) -> None:
        broken = random_maps(1, 4)
        broken[0, 0, 0] = np.nan
        assert np.isnan(agreement.map_pearson(broken, broken)).all()
        assert not agreement.is_constant(broken).any()

    def test_rounding_noise_counts_as_constant_but_small_numbers_do_not(self) -> None:
        noisy = np.float32(0.1) + random_maps(1, 5) * np.float32(1e-9)
        assert agreement.is_constant(noisy).all()
        assert not agreement.is_constant(random_maps(1, 5) * np.float32(1e-12)).any()


class TestTopShareIou:
    def test_iou_matches_a_hand_computed_value(self) -> None:
        # Two of ten positions each, one in common: 1 / 3.
        a = np.array([[[9, 8, 1, 2, 3, 0, 0, 0, 0, 0]]], dtype=np.float32)
        b = np.array([[[9, 1, 8, 2, 3, 0, 0, 0, 0, 0]]], dtype=np.float32)
        assert agreement.topk_iou(a, b) == pytest.approx([1 / 3])

    def test_small_share_selects_one_position(self) -> None:
        a = np.array([[[9, 8, 1, 2, 3]]], dtype=np.float32)
        b = np.array([[[9, 1, 8, 2, 3]]], dtype=np.float32)
        assert agreement.topk_iou(a, b, share=0.01) == 1
        assert agreement.topk_iou(a, b, share=0.3) == pytest.approx(1 / 3)

    def test_many_equal_values_resolve_in_row_order(self) -> None:
        a = np.tile(np.array([1, 0, 1, 1], dtype=np.float32), 64)[None, None]
        b = np.zeros_like(a)
        b[0, 0, np.flatnonzero(a)[:51]] = 1  # round(0.2 · 256)
        assert agreement.topk_iou(a, b) == 1

    def test_one_constant_or_non_finite_map_gives_nan(self) -> None:
        a, flat = random_maps(1, 18), np.zeros((1, 7, 7), dtype=np.float32)
        broken = a.copy()
        broken[0, 3, 3] = np.inf
        for other in (flat, broken):
            with np.errstate(invalid="ignore"):
                assert np.isnan(agreement.topk_iou(a, other)).all()
                assert np.isnan(agreement.topk_iou(other, a)).all()

    def test_equal_values_resolve_in_row_order(self) -> None:
        a = np.array([[[5, 5, 5, 0, 0, 0, 0, 0, 0, 0]]], dtype=np.float32)
        b = np.array([[[5, 5, 0, 0, 0, 0, 0, 0, 0, 0]]], dtype=np.float32)
        assert agreement.topk_iou(a, b) == pytest.approx([1.0])

    def test_unrelated_maps_reach_the_documented_chance_level(self) -> None:
        a, b = random_maps(4000, 6, 10, 10), random_maps(4000, 7, 10, 10)
        assert agreement.topk_iou(a, b).mean() == pytest.approx(0.2 / 1.8, abs=0.005)

    def test_constant_maps_do_not_overlap(self) -> None:
        flat = np.zeros((1, 7, 7), dtype=np.float32)
        assert np.isnan(agreement.topk_iou(flat, flat)).all()


class TestMapError:
    def test_error_matches_a_hand_computed_value(self) -> None:
        a = np.array([[[0.0, 4.0], [2.0, 1.0]]], dtype=np.float32)
        assert agreement.map_error(a, a + np.array([[0, 0.1], [0, -0.2]], dtype=np.float32)) == pytest.approx([0.05])

    def test_error_depends_on_the_scale(self) -> None:
        a = random_maps(3, 8)
        assert (agreement.map_error(a, 2 * a) > 0.3).all()

    def test_constant_reference_uses_its_largest_value(self) -> None:
        zero, one = np.zeros((1, 2, 2), dtype=np.float32), np.ones((1, 2, 2), dtype=np.float32)
        assert agreement.map_error(zero, zero) == 0
        assert agreement.map_error(zero, one) == np.inf
        assert agreement.map_error(4 * one, 5 * one) == pytest.approx(0.25)

    def test_nan_propagates(self) -> None:
        a = random_maps(1, 9)
        assert np.isnan(agreement.map_error(a, a * np.float32(np.nan))).all()


@pytest.mark.parametrize("n", [2, 3, 10, 257])
def test_permutation_is_fixed_complete_and_without_fixed_points(n: int) -> None:
    partner = agreement.permute_pairs(n)
    assert sorted(partner) == list(range(n))
    assert (partner != np.arange(n)).all()
    assert partner.dtype == np.int64


def test_permutation_is_one_cycle_through_a_seeded_order() -> None:
    order, partner = np.random.default_rng(0).permutation(11), agreement.permute_pairs(11)
    assert [partner[image] for image in order[1:]] == order[:-1].tolist()
    assert partner[order[0]] == order[-1]


class TestLocalisation:
    BOXES = np.array([[2.0, 1.0, 5.0, 3.0]], dtype=np.float32)

    @pytest.mark.parametrize(("row", "column", "hit"), [(1, 2, 1.0), (2, 4, 1.0), (0, 2, 0.0), (1, 5, 0.0)])
    def test_pointing_game_checks_the_maximum(self, row: int, column: int, hit: float) -> None:
        saliency_map = np.full((1, 4, 6), -1.0, dtype=np.float32)
        saliency_map[0, row, column] = -0.5
        assert agreement.pointing_game(saliency_map, box_mask(self.BOXES, 4, 6)) == hit

    def test_constant_map_scores_chance(self) -> None:
        flat = np.zeros((1, 4, 6), dtype=np.float32)
        assert agreement.pointing_game(flat, box_mask(self.BOXES, 4, 6)) == pytest.approx(6 / 24)

    def test_energy_counts_only_the_positive_part(self) -> None:
        saliency_map = np.full((1, 4, 6), -3.0, dtype=np.float32)
        saliency_map[0, 1, 2], saliency_map[0, 0, 0] = 3.0, 1.0
        mask = box_mask(self.BOXES, 4, 6)
        assert agreement.energy_inside(saliency_map, mask) == pytest.approx(0.75)
        assert agreement.energy_inside(np.ones_like(saliency_map), mask) == pytest.approx(6 / 24)

    def test_map_without_positive_part_has_no_energy(self) -> None:
        mask = box_mask(self.BOXES, 4, 6)
        assert np.isnan(agreement.energy_inside(np.full((1, 4, 6), -1.0, dtype=np.float32), mask)).all()


class TestResampling:
    def test_whole_blocks_become_their_means(self) -> None:
        maps = random_maps(3, 10, 8, 6)
        expected = maps.reshape(3, 4, 2, 3, 2).mean(axis=(2, 4))
        assert area_mean(maps, 4, 3) == pytest.approx(expected, abs=1e-6)

    def test_straddling_positions_are_split(self) -> None:
        # Three positions to two: half of the middle one goes to each.
        row = np.array([[[0.0, 6.0, 3.0]]], dtype=np.float32)
        assert area_mean(row, 1, 2) == pytest.approx(np.array([[[2.0, 4.0]]]))

    def test_mean_of_a_map_is_preserved(self) -> None:
        maps = random_maps(5, 11, 14, 14)
        assert area_mean(maps, 9, 5).mean(axis=(1, 2)) == pytest.approx(maps.mean(axis=(1, 2)), abs=1e-6)

    def test_maps_of_equal_size_are_unchanged(self) -> None:
        for height, width in ((4, 4), (3, 5)):
            a, b = random_maps(1, 12, height, width), random_maps(2, 13, height, width)
            assert all(x is y for x, y in zip(to_common_size(a, b), (a, b), strict=True))

    def test_heights_and_widths_are_matched_separately(self) -> None:
        a, b = to_common_size(random_maps(1, 12, 14, 7), random_maps(1, 13, 10, 8))
        assert a.shape == b.shape == (1, 10, 7) and a.dtype == b.dtype == np.float32
        a, b = to_common_size(random_maps(1, 12, 9, 20), random_maps(1, 13, 11, 8))
        assert a.shape == b.shape == (1, 9, 8)

    def test_smaller_height_and_width_are_used(self) -> None:
        a, b = to_common_size(random_maps(1, 12, 14, 7), random_maps(1, 13, 8, 8))
        assert a.shape == b.shape == (1, 8, 7)
