"""Similarity of maps compared with independent computations, and at edge cases."""

import numpy as np
import pytest
from toy_maps import Score, check_each_image_alone, random_maps

from kdedge_export.metrics import map_similarity
from kdedge_runtime.boxes import box_mask


@pytest.mark.parametrize("constant_ones", [False, True])
@pytest.mark.parametrize(
    "score",
    [
        map_similarity.map_pearson,
        map_similarity.map_error,
        map_similarity.scale_error,
        map_similarity.topk_iou,
        lambda a, b: map_similarity.is_constant(b),
        lambda a, b: map_similarity.pointing_game(b, a > 0.5),
        lambda a, b: map_similarity.energy_inside(b, a > 0.5),
    ],
)
def test_score_of_an_image_does_not_depend_on_others(score: Score, constant_ones: bool) -> None:
    check_each_image_alone(score, constant_ones)


class TestScaleError:
    def test_scale_error_is_the_relative_difference_of_norms(self) -> None:
        # Norms 5 and 4, 13 and 26, 0 and 3, 0 and 0.
        a = np.array([[[3, 4]], [[5, 12]], [[0, 0]], [[0, 0]]], dtype=np.float32)
        b = np.array([[[4, 0]], [[26, 0]], [[0, 3]], [[0, 0]]], dtype=np.float32)
        assert map_similarity.scale_error(a, b) == pytest.approx([0.2, 0.5, 1, 0])
        assert map_similarity.scale_error(b, a) == pytest.approx([0.2, 0.5, 1, 0])

    def test_non_finite_map_has_the_largest_scale_error(self) -> None:
        a = random_maps(1, 15)
        assert map_similarity.scale_error(a, a * np.float32(np.nan)) == 1


class TestPearson:
    def test_correlation_stays_within_its_range(self) -> None:
        a = random_maps(2000, 16).astype(np.float64)
        scales = np.random.default_rng(17).uniform(0.1, 10, (2000, 1, 1))
        assert map_similarity.map_pearson(a, scales * a).max() <= 1
        assert map_similarity.map_pearson(a, -scales * a).min() >= -1

    def test_nearly_constant_map_has_no_correlation(self) -> None:
        noisy = np.float32(0.1) + random_maps(1, 5) * np.float32(1e-8)
        assert np.ptp(noisy) > 0
        assert np.isnan(map_similarity.map_pearson(noisy, random_maps(1, 6))).all()
        assert np.isnan(map_similarity.map_pearson(random_maps(1, 6), noisy)).all()

    def test_correlation_matches_numpy(self) -> None:
        a, b = random_maps(20, 0), random_maps(20, 1)
        expected = [np.corrcoef(x.ravel(), y.ravel())[0, 1] for x, y in zip(a, b, strict=True)]
        assert map_similarity.map_pearson(a, b) == pytest.approx(expected, abs=1e-12)

    def test_correlation_ignores_scale_and_offset_but_not_sign(self) -> None:
        a = random_maps(5, 2)
        assert map_similarity.map_pearson(a, 3 * a + 100) == pytest.approx(np.ones(5), abs=1e-6)
        assert map_similarity.map_pearson(a, -a) == pytest.approx(-np.ones(5))

    @pytest.mark.parametrize("value", [0.0, 5.0, -1e-20])
    def test_constant_map_has_no_correlation(self, value: float) -> None:
        flat = np.full((1, 7, 7), value, dtype=np.float32)
        assert np.isnan(map_similarity.map_pearson(random_maps(1, 3), flat)).all()
        assert np.isnan(map_similarity.map_pearson(flat, random_maps(1, 3))).all()

    def test_map_with_nan_has_no_correlation_and_is_not_constant(self) -> None:
        broken = random_maps(1, 4)
        broken[0, 0, 0] = np.nan
        assert np.isnan(map_similarity.map_pearson(broken, broken)).all()
        assert not map_similarity.is_constant(broken).any()

    def test_rounding_noise_counts_as_constant_but_small_numbers_do_not(self) -> None:
        noisy = np.float32(0.1) + random_maps(1, 5) * np.float32(1e-9)
        assert map_similarity.is_constant(noisy).all()
        assert not map_similarity.is_constant(random_maps(1, 5) * np.float32(1e-12)).any()


class TestTopShareIou:
    def test_iou_matches_a_hand_computed_value(self) -> None:
        # Two of ten positions each, one in common: 1 / 3.
        a = np.array([[[9, 8, 1, 2, 3, 0, 0, 0, 0, 0]]], dtype=np.float32)
        b = np.array([[[9, 1, 8, 2, 3, 0, 0, 0, 0, 0]]], dtype=np.float32)
        assert map_similarity.topk_iou(a, b) == pytest.approx([1 / 3])

    def test_small_share_selects_one_position(self) -> None:
        a = np.array([[[9, 8, 1, 2, 3]]], dtype=np.float32)
        b = np.array([[[9, 1, 8, 2, 3]]], dtype=np.float32)
        assert map_similarity.topk_iou(a, b, share=0.01) == 1
        assert map_similarity.topk_iou(a, b, share=0.3) == pytest.approx(1 / 3)

    def test_many_equal_values_resolve_in_row_order(self) -> None:
        a = np.tile(np.array([1, 0, 1, 1], dtype=np.float32), 64)[None, None]
        b = np.zeros_like(a)
        b[0, 0, np.flatnonzero(a)[:51]] = 1  # round(0.2 · 256)
        assert map_similarity.topk_iou(a, b) == 1

    def test_one_constant_or_non_finite_map_gives_nan(self) -> None:
        a, flat = random_maps(1, 18), np.zeros((1, 7, 7), dtype=np.float32)
        broken = a.copy()
        broken[0, 3, 3] = np.inf
        for other in (flat, broken):
            with np.errstate(invalid="ignore"):
                assert np.isnan(map_similarity.topk_iou(a, other)).all()
                assert np.isnan(map_similarity.topk_iou(other, a)).all()

    def test_equal_values_resolve_in_row_order(self) -> None:
        a = np.array([[[5, 5, 5, 0, 0, 0, 0, 0, 0, 0]]], dtype=np.float32)
        b = np.array([[[5, 5, 0, 0, 0, 0, 0, 0, 0, 0]]], dtype=np.float32)
        assert map_similarity.topk_iou(a, b) == pytest.approx([1.0])

    def test_unrelated_maps_reach_the_documented_chance_level(self) -> None:
        a, b = random_maps(4000, 6, 10, 10), random_maps(4000, 7, 10, 10)
        assert map_similarity.topk_iou(a, b).mean() == pytest.approx(0.2 / 1.8, abs=0.005)

    def test_constant_maps_do_not_overlap(self) -> None:
        flat = np.zeros((1, 7, 7), dtype=np.float32)
        assert np.isnan(map_similarity.topk_iou(flat, flat)).all()


class TestMapError:
    def test_error_matches_a_hand_computed_value(self) -> None:
        a = np.array([[[0.0, 4.0], [2.0, 1.0]]], dtype=np.float32)
        assert map_similarity.map_error(a, a + np.array([[0, 0.1], [0, -0.2]], dtype=np.float32)) == pytest.approx(
            [0.05]
        )

    def test_error_depends_on_the_scale(self) -> None:
        a = random_maps(3, 8)
        assert (map_similarity.map_error(a, 2 * a) > 0.3).all()

    def test_constant_reference_uses_its_largest_value(self) -> None:
        zero, one = np.zeros((1, 2, 2), dtype=np.float32), np.ones((1, 2, 2), dtype=np.float32)
        assert map_similarity.map_error(zero, zero) == 0
        assert map_similarity.map_error(zero, one) == np.inf
        assert map_similarity.map_error(4 * one, 5 * one) == pytest.approx(0.25)

    def test_nan_propagates(self) -> None:
        a = random_maps(1, 9)
        assert np.isnan(map_similarity.map_error(a, a * np.float32(np.nan))).all()


@pytest.mark.parametrize("n", [2, 3, 10, 257])
def test_permutation_is_fixed_complete_and_without_fixed_points(n: int) -> None:
    partner = map_similarity.permute_pairs(n)
    assert sorted(partner) == list(range(n))
    assert (partner != np.arange(n)).all()
    assert partner.dtype == np.int64


def test_permutation_is_one_cycle_through_a_seeded_order() -> None:
    order, partner = np.random.default_rng(0).permutation(11), map_similarity.permute_pairs(11)
    assert [partner[image] for image in order[1:]] == order[:-1].tolist()
    assert partner[order[0]] == order[-1]


class TestLocalisation:
    BOXES = np.array([[2.0, 1.0, 5.0, 3.0]], dtype=np.float32)

    @pytest.mark.parametrize(("row", "column", "hit"), [(1, 2, 1.0), (2, 4, 1.0), (0, 2, 0.0), (1, 5, 0.0)])
    def test_pointing_game_checks_the_maximum(self, row: int, column: int, hit: float) -> None:
        saliency_map = np.full((1, 4, 6), -1.0, dtype=np.float32)
        saliency_map[0, row, column] = -0.5
        assert map_similarity.pointing_game(saliency_map, box_mask(self.BOXES, 4, 6)) == hit

    def test_constant_map_scores_chance(self) -> None:
        flat = np.zeros((1, 4, 6), dtype=np.float32)
        assert map_similarity.pointing_game(flat, box_mask(self.BOXES, 4, 6)) == pytest.approx(6 / 24)

    def test_energy_counts_only_the_positive_part(self) -> None:
        saliency_map = np.full((1, 4, 6), -3.0, dtype=np.float32)
        saliency_map[0, 1, 2], saliency_map[0, 0, 0] = 3.0, 1.0
        mask = box_mask(self.BOXES, 4, 6)
        assert map_similarity.energy_inside(saliency_map, mask) == pytest.approx(0.75)
        assert map_similarity.energy_inside(np.ones_like(saliency_map), mask) == pytest.approx(6 / 24)

    def test_map_without_positive_part_has_no_energy(self) -> None:
        mask = box_mask(self.BOXES, 4, 6)
        assert np.isnan(map_similarity.energy_inside(np.full((1, 4, 6), -1.0, dtype=np.float32), mask)).all()
