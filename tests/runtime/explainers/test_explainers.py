"""Black-box explainers on known functions: exact values, standard errors and budgets."""

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest

from kdedge_runtime.explainers import MapEstimate
from kdedge_runtime.explainers.kernel_shap import kernel_shap
from kdedge_runtime.explainers.lime import lime
from kdedge_runtime.explainers.masked_scorer import MaskedScorer
from kdedge_runtime.explainers.occlusion import occlusion
from kdedge_runtime.explainers.rise import draw_masks, rise
from kdedge_runtime.explainers.score_cam import score_cam
from kdedge_runtime.modalities.image import ImageInput

SIDE = 28
BLACK = ImageInput(SIDE, SIDE, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
"""Input whose hidden parts are black."""
WHITE = np.full((SIDE, SIDE, 3), 255, np.uint8)
Score = Callable[[np.ndarray], np.ndarray]


class Counting:
    """Score that takes one millisecond per image, on a simulated clock."""

    def __init__(self, score: Score) -> None:
        self._score = score
        self.images = 0

    def __call__(self, pictures: np.ndarray) -> np.ndarray:
        assert pictures.dtype == np.uint8
        self.images += len(pictures)
        return self._score(pictures)

    def clock(self) -> float:
        return self.images / 1e3


def scorer(score: Score, seed: int = 0, budget_ms: float | None = None) -> MaskedScorer:
    counting = Counting(score)
    return MaskedScorer(counting, WHITE, BLACK, seed=seed, budget_ms=budget_ms, clock=counting.clock)


def blocks(rows: int, columns: int) -> np.ndarray:
    down, across = np.indices((SIDE, SIDE))
    return down * rows // SIDE * columns + across * columns // SIDE


def present(pictures: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """Return the visible share of each part, `[n, parts]`."""
    flat = parts.ravel()
    seen = pictures[..., 0].reshape(len(pictures), -1) / 255
    sums = np.stack([np.bincount(flat, row) for row in seen])
    return sums / np.bincount(flat)


def linear(weights: np.ndarray) -> Score:
    """Return a score that sums pixel weights `[SIDE, SIDE]`."""
    return lambda pictures: (pictures[..., 0] / 255 * weights).sum(axis=(1, 2))


def tangled(seed: int) -> Score:
    """Return a score with interactions: a small random network on sixteen blocks."""
    rng = np.random.default_rng(seed)
    first, second = rng.normal(0, 0.5, (16, 12)), rng.normal(0, 0.5, 12)
    parts = blocks(4, 4)
    return lambda pictures: 1 / (1 + np.exp(-np.maximum(present(pictures, parts) @ first, 0) @ second))


def table(values: np.ndarray, parts: np.ndarray) -> Score:
    """Return a score that is an arbitrary function of the visible parts."""
    bits = 2 ** np.arange(int(parts.max()) + 1)
    return lambda pictures: values[(present(pictures, parts) > 0.5) @ bits]


def shapley_by_definition(values: np.ndarray, count: int) -> np.ndarray:
    result = np.zeros(count)
    for part in range(count):
        others = [other for other in range(count) if other != part]
        for size in range(count):
            weight = math.factorial(size) * math.factorial(count - size - 1) / math.factorial(count)
            for coalition in itertools.combinations(others, size):
                number = sum(2**other for other in coalition)
                result[part] += weight * (values[number + 2**part] - values[number])
    return result


def of_parts(estimate: MapEstimate, parts: np.ndarray) -> np.ndarray:
    """Return the map value of each part, which must be constant."""
    values = [np.unique(estimate.map[parts == part]) for part in range(int(parts.max()) + 1)]
    assert all(len(value) == 1 for value in values)
    return np.concatenate(values).astype(np.float64)


class TestOcclusion:
    def test_value_is_mean_score_drop_of_covering_squares(self) -> None:
        weights = np.random.default_rng(0).normal(0, 1, (SIDE, SIDE))
        estimate = occlusion(scorer(linear(weights)))
        assert estimate.map.shape == (14, 14)
        assert estimate.evaluations == 1 + 144
        position = weights.reshape(14, 2, 14, 2).sum(axis=(1, 3))
        drops = np.array([[position[i : i + 3, j : j + 3].sum() for j in range(12)] for i in range(12)])
        for i, j in itertools.product(range(14), repeat=2):
            over = drops[max(i - 2, 0) : i + 1, max(j - 2, 0) : j + 1]
            np.testing.assert_allclose(estimate.map[i, j], over.mean(), rtol=1e-5, atol=1e-5)
        assert (estimate.standard_error == 0).all(), "all squares were evaluated"

    def test_image_is_tiled_first_under_any_budget(self) -> None:
        estimate = occlusion(scorer(tangled(0), budget_ms=1))
        assert 25 <= estimate.evaluations - 1 < 25 + 8
        assert np.isfinite(estimate.map).all()
        assert (estimate.standard_error > 0).any()


class TestRise:
    def test_masks_are_smooth_with_mean_one_half(self) -> None:
        masks = draw_masks(np.random.default_rng(0), 3000, 56, 70)
        assert masks.shape == (3000, 56, 70)
        assert masks.min() >= 0
        assert masks.max() <= 1
        np.testing.assert_allclose(masks.mean(axis=0), 0.5, atol=0.035)
        assert np.abs(np.diff(masks, axis=1)).max() <= 1 / 8 + 1e-6, "masks are smooth"

    def test_map_is_affine_in_published_map(self) -> None:
        kept: list[np.ndarray] = []
        score, predictions = tangled(1), []

        class Recording(MaskedScorer):
            def score(self, keep: np.ndarray) -> np.ndarray:
                kept.append(keep)
                predictions.append(super().score(keep))
                return predictions[-1]

        estimate = rise(Recording(score, WHITE, BLACK, seed=3))
        masks, scores = np.concatenate(kept).astype(np.float64), np.concatenate(predictions)
        assert len(masks) == 2000
        published = np.tensordot(scores, masks, axes=1) / len(masks) / 0.5
        visible = masks.mean(axis=0)
        np.testing.assert_allclose(estimate.map, (published - scores.mean() * visible / 0.5) / 0.5, atol=1e-5)

    def test_linear_score_matches_mask_statistics(self) -> None:
        weights = np.zeros((SIDE, SIDE))
        weights[:14, :14] = 1 / 196
        estimate = rise(scorer(linear(weights)))
        masks = draw_masks(np.random.default_rng(99), 20_000, SIDE, SIDE).astype(np.float64)
        expected = np.tensordot((masks * weights).sum(axis=(1, 2)), masks - masks.mean(axis=0), axes=1) / 20_000 / 0.25
        apart = np.abs(estimate.map - expected) / estimate.standard_error
        assert np.median(apart) < 1.5
        assert apart.max() < 5
        assert (estimate.map / estimate.standard_error)[3:11, 3:11].min() > 15


class TestShapley:
    @pytest.mark.parametrize("seed", [0, 1])
    def test_few_parts_give_exact_shapley_values(self, seed: int) -> None:
        parts = blocks(2, 4)
        values = np.random.default_rng(seed).normal(0, 1, 2**8)
        estimate = kernel_shap(scorer(table(values, parts)), parts)
        assert estimate.evaluations == 2**8
        np.testing.assert_allclose(of_parts(estimate, parts), shapley_by_definition(values, 8), atol=1e-6)
        assert (estimate.standard_error == 0).all()

    @pytest.mark.parametrize(("rows", "columns", "budget_ms"), [(2, 4, None), (2, 4, 100), (6, 6, None), (6, 6, 300)])
    def test_shapley_values_satisfy_efficiency(self, rows: int, columns: int, budget_ms: float | None) -> None:
        parts = blocks(rows, columns)
        score = tangled(2)
        estimate = kernel_shap(scorer(score, budget_ms=budget_ms), parts)
        whole, nothing = score(np.stack([WHITE, np.zeros_like(WHITE)]))
        np.testing.assert_allclose(of_parts(estimate, parts).sum(), whole - nothing, atol=1e-6)

    def test_interaction_is_shared_and_dummy_parts_get_zero(self) -> None:
        parts = blocks(2, 3)
        both = np.array([float(number & 0b11 == 0b11) for number in range(2**6)])
        estimate = kernel_shap(scorer(table(both, parts)), parts)
        np.testing.assert_allclose(of_parts(estimate, parts), [0.5, 0.5, 0, 0, 0, 0], atol=1e-6)

    def test_additive_score_is_recovered_exactly(self) -> None:
        parts = blocks(5, 6)
        gains = np.random.default_rng(0).normal(0, 1, 30)
        estimate = kernel_shap(scorer(lambda pictures: present(pictures, parts) @ gains), parts)
        np.testing.assert_allclose(of_parts(estimate, parts), gains, atol=1e-5)
        assert estimate.standard_error.max() < 1e-6

    def test_single_part_gets_the_whole_score(self) -> None:
        estimate = kernel_shap(scorer(tangled(0)), np.zeros((SIDE, SIDE), np.int64))
        whole, nothing = tangled(0)(np.stack([WHITE, np.zeros_like(WHITE)]))
        np.testing.assert_allclose(estimate.map, whole - nothing, rtol=1e-6)


class TestErrors:
    """Standard errors match the spread of maps over seeds."""

    PARTS = blocks(5, 5)
    CHANNELS = np.maximum(np.random.default_rng(5).normal(0, 1, (200, 7, 7)), 0).astype(np.float32)
    RUNS = 60

    @pytest.mark.parametrize(
        ("method", "budget_ms"),
        [
            (rise, 300),
            (lambda scorer: lime(scorer, TestErrors.PARTS), 300),
            (lambda scorer: kernel_shap(scorer, TestErrors.PARTS), 200),
            (lambda scorer: kernel_shap(scorer, blocks(3, 3)), 150),
            (lambda scorer: score_cam(scorer, TestErrors.CHANNELS), 100),
        ],
        ids=["rise", "lime", "shap", "shap, some of all coalitions", "scorecam"],
    )
    def test_standard_error_matches_spread_over_seeds(
        self, method: Callable[[MaskedScorer], MapEstimate], budget_ms: float
    ) -> None:
        runs = [method(scorer(tangled(4), seed=seed, budget_ms=budget_ms)) for seed in range(self.RUNS)]
        scatter = np.stack([run.map for run in runs]).std(axis=0, ddof=1)
        estimated = np.sqrt(np.mean([run.standard_error**2 for run in runs], axis=0))
        assert np.median(scatter / estimated) == pytest.approx(1, abs=0.2)

    def test_occlusion_error_has_the_right_magnitude(self) -> None:
        """Check the order of magnitude only, because the first squares are not random."""
        truth = occlusion(scorer(tangled(4))).map
        runs = [occlusion(scorer(tangled(4), seed=seed, budget_ms=70)) for seed in range(20)]
        off = np.sqrt(np.mean([(run.map - truth) ** 2 for run in runs]))
        estimated = np.sqrt(np.mean([run.standard_error**2 for run in runs]))
        assert 0.5 < off / estimated < 2

    @pytest.mark.parametrize("method", [rise, lambda scorer: lime(scorer, TestErrors.PARTS)], ids=["rise", "lime"])
    def test_error_scales_with_inverse_square_root_of_budget(
        self, method: Callable[[MaskedScorer], MapEstimate]
    ) -> None:
        short, long = (method(scorer(tangled(4), budget_ms=budget_ms)) for budget_ms in (400, 3600))
        assert long.evaluations == pytest.approx(9 * short.evaluations, rel=0.05)
        ratio = np.median(long.standard_error / short.standard_error)
        assert ratio == pytest.approx(1 / 3, rel=0.2)

    def test_too_few_evaluations_give_infinite_error(self) -> None:
        shown, scores = np.ones((3, 8), bool), np.arange(3.0)
        from kdedge_runtime.explainers.lime import local_model

        assert np.isinf(local_model(shown, scores)[1]).all()
