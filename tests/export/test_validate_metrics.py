"""Every metric against a second, independent way to compute it, and at the edges where metrics lie."""

import math

import numpy as np
import pytest

from kdedge_export.validate import metrics
from kdedge_export.validate.resample import area_mean, to_common_size
from kdedge_runtime.boxes import box_mask


def random_maps(n: int, seed: int, height: int = 7, width: int = 7) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, height, width)).astype(np.float32)


def test_a_drop_of_exactly_one_point_is_one_point() -> None:
    lost = np.zeros(700)
    lost[:10], lost[-3:] = 1.0, -1.0
    assert metrics.points_lost(lost) == 1.0


class TestAnswers:
    LOGITS = np.array([[2.0, 1.0], [0.0, 3.0], [5.0, 4.0], [1.0, 9.0]], dtype=np.float32)

    def test_accuracy_counts_top_classes_that_are_the_target(self) -> None:
        assert metrics.top1_accuracy(self.LOGITS, np.array([0, 1, 1, 0])) == 0.5
        assert metrics.is_right(self.LOGITS, np.array([0, 1, 1, 0])).sum() == 2

    def test_agreement_counts_equal_top_classes(self) -> None:
        other = self.LOGITS.copy()
        other[0] = [0.0, 1.0]
        assert metrics.agreement(self.LOGITS, other) == 0.75

    def test_logits_that_are_not_finite_are_no_answer_and_agree_with_nothing(self) -> None:
        broken = np.full((2, 3), np.nan, dtype=np.float32)
        assert metrics.top1(broken).tolist() == [-1, -1]
        assert metrics.agreement(broken, broken) == 0.0
        assert metrics.top1_accuracy(broken, np.array([0, 0])) == 0.0

    def test_kl_by_hand(self) -> None:
        # p = (1/2, 1/2), q = (1/4, 3/4): 1/2 ln 2 + 1/2 ln 2/3.
        reference = np.zeros((1, 2), dtype=np.float32)
        candidate = np.log(np.array([[0.25, 0.75]], dtype=np.float32))
        expected = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)
        assert metrics.kl_divergence(reference, candidate)[0] == pytest.approx(expected, rel=1e-6)

    def test_kl_ignores_an_offset_and_survives_large_logits(self) -> None:
        logits = np.array([[1000.0, 999.0], [-1000.0, 0.0]], dtype=np.float32)
        assert metrics.kl_divergence(logits, logits + 7) == pytest.approx([0.0, 0.0])


class TestPearson:
    def test_it_is_numpys_correlation_coefficient(self) -> None:
        a, b = random_maps(20, 0), random_maps(20, 1)
        expected = [np.corrcoef(x.ravel(), y.ravel())[0, 1] for x, y in zip(a, b, strict=True)]
        assert metrics.map_pearson(a, b) == pytest.approx(expected, abs=1e-12)

    def test_scale_and_offset_do_not_count_but_the_sign_does(self) -> None:
        a = random_maps(5, 2)
        assert metrics.map_pearson(a, 3 * a + 100) == pytest.approx(np.ones(5), abs=1e-6)
        assert metrics.map_pearson(a, -a) == pytest.approx(-np.ones(5))

    @pytest.mark.parametrize("value", [0.0, 5.0, -1e-20])
    def test_a_constant_map_has_no_correlation(self, value: float) -> None:
        flat = np.full((1, 7, 7), value, dtype=np.float32)
        assert np.isnan(metrics.map_pearson(random_maps(1, 3), flat)).all()
        assert np.isnan(metrics.map_pearson(flat, random_maps(1, 3))).all()

    def test_a_map_with_a_nan_has_no_correlation_and_is_not_called_constant(self) -> None:
        broken = random_maps(1, 4)
        broken[0, 0, 0] = np.nan
        assert np.isnan(metrics.map_pearson(broken, broken)).all()
        assert not metrics.is_constant(broken).any()

    def test_rounding_noise_on_a_constant_is_constant_and_small_numbers_are_not(self) -> None:
        noisy = np.float32(0.1) + random_maps(1, 5) * np.float32(1e-9)
        assert metrics.is_constant(noisy).all()
        assert not metrics.is_constant(random_maps(1, 5) * np.float32(1e-12)).any()


class TestTopShareIou:
    def test_by_hand(self) -> None:
        # Two of ten cells each, one in common: 1 / 3.
        a = np.array([[[9, 8, 1, 2, 3, 0, 0, 0, 0, 0]]], dtype=np.float32)
        b = np.array([[[9, 1, 8, 2, 3, 0, 0, 0, 0, 0]]], dtype=np.float32)
        assert metrics.top_share_iou(a, b) == pytest.approx([1 / 3])

    def test_equal_cells_are_taken_in_row_order(self) -> None:
        a = np.array([[[5, 5, 5, 0, 0, 0, 0, 0, 0, 0]]], dtype=np.float32)
        b = np.array([[[5, 5, 0, 0, 0, 0, 0, 0, 0, 0]]], dtype=np.float32)
        assert metrics.top_share_iou(a, b) == pytest.approx([1.0])

    def test_unrelated_maps_reach_the_documented_chance_level(self) -> None:
        a, b = random_maps(4000, 6, 10, 10), random_maps(4000, 7, 10, 10)
        assert metrics.top_share_iou(a, b).mean() == pytest.approx(0.2 / 1.8, abs=0.005)

    def test_a_constant_map_does_not_overlap_by_accident(self) -> None:
        flat = np.zeros((1, 7, 7), dtype=np.float32)
        assert np.isnan(metrics.top_share_iou(flat, flat)).all()


class TestMapError:
    def test_by_hand(self) -> None:
        a = np.array([[[0.0, 4.0], [2.0, 1.0]]], dtype=np.float32)
        assert metrics.map_error(a, a + np.array([[0, 0.1], [0, -0.2]], dtype=np.float32)) == pytest.approx([0.05])

    def test_it_sees_the_scale_that_the_correlation_ignores(self) -> None:
        a = random_maps(3, 8)
        assert (metrics.map_error(a, 2 * a) > 0.3).all()

    def test_a_constant_reference_is_kept_or_broken(self) -> None:
        zero, one = np.zeros((1, 2, 2), dtype=np.float32), np.ones((1, 2, 2), dtype=np.float32)
        assert metrics.map_error(zero, zero) == 0
        assert metrics.map_error(zero, one) == np.inf
        assert metrics.map_error(4 * one, 5 * one) == pytest.approx(0.25)

    def test_nan_stays_nan(self) -> None:
        a = random_maps(1, 9)
        assert np.isnan(metrics.map_error(a, a * np.float32(np.nan))).all()


@pytest.mark.parametrize("n", [2, 3, 10, 257])
def test_the_shuffle_is_fixed_complete_and_leaves_no_image_in_place(n: int) -> None:
    partner = metrics.derangement(n)
    assert sorted(partner) == list(range(n))
    assert (partner != np.arange(n)).all()
    assert (partner == metrics.derangement(n)).all()


class TestLocalisation:
    BOXES = np.array([[2.0, 1.0, 5.0, 3.0]], dtype=np.float32)

    @pytest.mark.parametrize(("row", "column", "hit"), [(1, 2, 1.0), (2, 4, 1.0), (0, 2, 0.0), (1, 5, 0.0)])
    def test_the_maximum_is_in_the_box_or_not(self, row: int, column: int, hit: float) -> None:
        saliency_map = np.full((1, 4, 6), -1.0, dtype=np.float32)
        saliency_map[0, row, column] = -0.5
        assert metrics.pointing_game(saliency_map, box_mask(self.BOXES, 4, 6)) == hit

    def test_a_constant_map_scores_like_a_random_guess(self) -> None:
        flat = np.zeros((1, 4, 6), dtype=np.float32)
        assert metrics.pointing_game(flat, box_mask(self.BOXES, 4, 6)) == pytest.approx(6 / 24)

    def test_energy_counts_the_positive_part_only(self) -> None:
        saliency_map = np.full((1, 4, 6), -3.0, dtype=np.float32)
        saliency_map[0, 1, 2], saliency_map[0, 0, 0] = 3.0, 1.0
        mask = box_mask(self.BOXES, 4, 6)
        assert metrics.energy_inside(saliency_map, mask) == pytest.approx(0.75)
        assert metrics.energy_inside(np.ones_like(saliency_map), mask) == pytest.approx(6 / 24)

    def test_a_map_without_evidence_has_no_energy_to_place(self) -> None:
        mask = box_mask(self.BOXES, 4, 6)
        assert np.isnan(metrics.energy_inside(np.full((1, 4, 6), -1.0, dtype=np.float32), mask)).all()


class TestResampling:
    def test_whole_blocks_become_their_means(self) -> None:
        maps = random_maps(3, 10, 8, 6)
        expected = maps.reshape(3, 4, 2, 3, 2).mean(axis=(2, 4))
        assert area_mean(maps, 4, 3) == pytest.approx(expected, abs=1e-6)

    def test_straddling_cells_are_split(self) -> None:
        # Three cells to two: the middle one gives half of itself to each.
        row = np.array([[[0.0, 6.0, 3.0]]], dtype=np.float32)
        assert area_mean(row, 1, 2) == pytest.approx(np.array([[[2.0, 4.0]]]))

    def test_the_mean_of_a_map_is_kept(self) -> None:
        maps = random_maps(5, 11, 14, 14)
        assert area_mean(maps, 9, 5).mean(axis=(1, 2)) == pytest.approx(maps.mean(axis=(1, 2)), abs=1e-6)

    def test_two_sizes_meet_at_the_smaller_height_and_width(self) -> None:
        a, b = to_common_size(random_maps(1, 12, 14, 7), random_maps(1, 13, 8, 8))
        assert a.shape == b.shape == (1, 8, 7)
