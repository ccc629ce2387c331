"""Black-box explainers on known functions: exact values, standard errors and budgets."""

import itertools
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from kdedge_runtime.errors import UsageError
from kdedge_runtime.explainers import MapEstimate, make_explainer, methods_for
from kdedge_runtime.explainers.image_grid import enlarge, grid_edges, grid_means
from kdedge_runtime.explainers.kernel_shap import kernel_shap
from kdedge_runtime.explainers.lime import lime
from kdedge_runtime.explainers.masked_scorer import MaskedScorer
from kdedge_runtime.explainers.occlusion import occlusion
from kdedge_runtime.explainers.registry import EXPLAINERS
from kdedge_runtime.explainers.rise import draw_masks, rise
from kdedge_runtime.explainers.score_cam import score_cam
from kdedge_runtime.explainers.superpixels import superpixels
from kdedge_runtime.modalities.image import ImageInput
from kdedge_runtime.model import Model
from kdedge_runtime.saliency_methods import methods_of

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


class TestGrid:
    def test_position_edges_cover_the_side_evenly(self) -> None:
        assert grid_edges(224, 14).tolist() == list(range(0, 225, 16))
        assert grid_edges(10, 4).tolist() == [0, 2, 5, 8, 10]
        assert grid_edges(5, 14).tolist() == [0, 1, 2, 3, 4, 5]

    def test_position_means_average_pixels(self) -> None:
        masks = np.random.default_rng(0).random((3, 10, 6)).astype(np.float32)
        means = grid_means(masks, grid_edges(10, 4), grid_edges(6, 2))
        assert means.shape == (3, 4, 2)
        np.testing.assert_allclose(means[1, 2, 1], masks[1, 5:8, 3:].mean(), rtol=1e-6)

    def test_enlarge_interpolates_linearly_between_position_centers(self) -> None:
        large = enlarge(np.array([[[0.0, 3.0]]], np.float32), 1, 6)
        np.testing.assert_allclose(large[0, 0], [0, 0, 1, 2, 3, 3], atol=1e-6)


class TestSuperpixels:
    def test_superpixels_follow_color_edges(self) -> None:
        picture = np.full((60, 80, 3), 40, np.uint8)
        picture[13:41, 22:61] = (220, 60, 30)
        parts = superpixels(picture, 30)
        inside = np.zeros((60, 80), bool)
        inside[13:41, 22:61] = True
        share = np.bincount(parts.ravel(), inside.ravel()) / np.bincount(parts.ravel())
        assert ((share[parts] > 0.5) == inside).mean() > 0.98

    @pytest.mark.parametrize("shape", [(224, 224), (30, 200), (7, 5)])
    @pytest.mark.parametrize("count", [2, 12, 40])
    def test_superpixel_count_is_bounded_and_labels_are_contiguous(self, shape: tuple[int, int], count: int) -> None:
        picture = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
        parts = superpixels(picture, count)
        assert parts.shape == shape
        assert np.unique(parts).tolist() == list(range(parts.max() + 1))
        assert count // 2 <= parts.max() + 1 <= count


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


def test_black_box_methods_are_the_listed_ones() -> None:
    assert tuple(EXPLAINERS) == methods_of("perturbation")


def test_file_without_a_map_has_no_method_that_takes_activations(write_model: Callable[..., Path]) -> None:
    with_map, mapless = (Model.load(write_model(method=method), threads=1) for method in ("cam", "none"))
    assert methods_for(with_map) == tuple(EXPLAINERS)
    assert set(EXPLAINERS) - set(methods_for(mapless)) == {"scorecam"}


class TestExplainer:
    @pytest.mark.parametrize("method", [name for name in methods_of("perturbation") if name != "scorecam"])
    @pytest.mark.parametrize("has_map", [True, False])
    def test_map_locates_the_object(
        self, write_model: Callable[..., Path], red_spot: np.ndarray, method: str, has_map: bool
    ) -> None:
        model = Model.load(write_model(method="cam" if has_map else "none"), threads=1)
        explain = make_explainer(model, method, parts=36 if method in ("lime", "shap") else None)
        for picture in (red_spot, np.rot90(red_spot).copy()):
            spot = picture[..., 0] == 255
            estimate = explain(picture, model.class_index("red", by_explainer=True))
            heat = enlarge(np.maximum(estimate.map, 0)[None], *spot.shape)[0]
            assert heat[spot].mean() > 4 * heat[~spot].mean()
            against = explain(picture, model.class_index("blue", by_explainer=True))
            assert enlarge(against.map[None], *spot.shape)[0][spot].mean() < 0, "red is negative evidence for blue"

    @pytest.mark.parametrize("kind", ["tensor", "output", "int8"])
    def test_score_cam_matches_reference_implementation(
        self, model_path: Path, red_spot: np.ndarray, tmp_path: Path, kind: str
    ) -> None:
        graph = onnx.load(str(model_path))
        given = "target_activations_DequantizeLinear_Output" if kind == "int8" else "target_activations"
        for index, node in enumerate(graph.graph.node):  # names written by the exporter and the quantizer
            node.input[:] = [given if name == "activations" else name for name in node.input]
            if "activations" in node.output:
                node.output[:] = ["target_activations"]
                made_at = index
        if kind == "output":
            graph.graph.output.append(
                helper.make_tensor_value_info("target_activations", TensorProto.FLOAT, ["N", 3, 8, 8])
            )
        if kind == "int8":  # clips at 1/2, as quantization does instead of a ReLU6
            graph.graph.initializer.append(numpy_helper.from_array(np.array(0.5 / 255, np.float32), "scale"))
            graph.graph.initializer.append(numpy_helper.from_array(np.array(0, np.uint8), "zero_point"))
            for step, (kernel, taken, made) in enumerate(
                (("QuantizeLinear", "target_activations", "levels"), ("DequantizeLinear", "levels", given))
            ):
                node = helper.make_node(kernel, [taken, "scale", "zero_point"], [made])
                graph.graph.node.insert(made_at + 1 + step, node)
        onnx.save(graph, str(tmp_path / "named.onnx"))
        model = Model.load(tmp_path / "named.onnx", threads=1)
        for picture in (red_spot, np.rot90(red_spot).copy()):
            estimate = make_explainer(model, "scorecam")(picture, 0)
            # The channels of the color model are color means over 8 × 8 pixels.
            channels = picture.reshape(8, 8, 8, 8, 3).mean(axis=(1, 3)).transpose(2, 0, 1) / 255
            if kind == "int8":
                channels = np.minimum(np.rint(channels * 510), 255) / 510
            span = np.ptp(channels, axis=(1, 2), keepdims=True) + 1e-8
            masks = enlarge((channels - channels.min(axis=(1, 2), keepdims=True)) / span, 64, 64)
            masked = np.rint(masks[..., None] * picture).astype(np.uint8)
            logits = model.predict(masked).logits[:, 0].astype(np.float64)
            weights = np.exp(logits) / np.exp(logits).sum()
            np.testing.assert_allclose(estimate.map, np.tensordot(weights, channels, axes=1), rtol=1e-4)
            assert (estimate.standard_error == 0).all()

    def test_same_seed_gives_same_map(self, model: Model, red_spot: np.ndarray) -> None:
        maps = [make_explainer(model, "rise", seed=seed)(red_spot, 0).map for seed in (1, 1, 2)]
        np.testing.assert_array_equal(maps[0], maps[1])
        assert np.abs(maps[0] - maps[2]).max() > 0

    def test_progress_reaches_its_total(self, model: Model, red_spot: np.ndarray) -> None:
        seen: list[tuple[int, int]] = []
        make_explainer(model, "lime", parts=4)(red_spot, 0, lambda _, done, total: seen.append((done, total)))
        assert seen[-1] == (999, 999)
        seen.clear()
        make_explainer(model, "lime", parts=4, budget_ms=60)(
            red_spot, 0, lambda _, done, total: seen.append((done, total))
        )
        assert {total for _, total in seen} == {60}
        assert seen == sorted(seen)
        assert seen[-1] == (60, 60)

    def test_fixed_batch_size_of_one_is_supported(
        self, write_model: Callable[..., Path], red_spot: np.ndarray, tmp_path: Path
    ) -> None:
        path = write_model(method="none")
        free = make_explainer(Model.load(path, threads=1), "occlusion")(red_spot, 0)
        graph = onnx.load(str(path))
        graph.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
        onnx.save(graph, str(tmp_path / "fixed.onnx"))
        fixed = make_explainer(Model.load(tmp_path / "fixed.onnx", threads=1), "occlusion")(red_spot, 0)
        np.testing.assert_allclose(fixed.map, free.map, atol=1e-6)

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            (
                {"method": "gradcam"},
                "method 'gradcam' does not exist.*Expected one of occlusion, rise, lime, shap, scorecam",
            ),
            ({"method": "rise", "parts": 9}, "rise has no superpixels.*lime or shap"),
            ({"method": "shap", "parts": 1}, "1 superpixels .*Expected 2 to 200"),
            ({"method": "lime", "budget_ms": 0.0}, "budget of 0 ms"),
            (
                {"method": "scorecam"},
                "no tensor target_activations.* Use another --method: occlusion",
            ),
        ],
    )
    def test_invalid_settings_are_rejected(self, model: Model, settings: dict[str, object], message: str) -> None:
        with pytest.raises(UsageError, match=message):
            make_explainer(model, **settings)  # type: ignore[arg-type]
