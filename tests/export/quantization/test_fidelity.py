"""Test fidelity of a quantized graph against loops over known values."""

import math

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from kdedge_export.metrics.confidence import DIFFERENCE, mean_interval
from kdedge_export.onnx_graph.session import open_session
from kdedge_export.quantization import calibration_ranges, fidelity
from kdedge_export.quantization.fidelity import Fidelity, FidelityEvaluator
from kdedge_runtime.int8_arithmetic import int8_arithmetic

CLASSES = 4
IMAGES = np.random.default_rng(0).integers(0, 256, (9, 2, 2, 3), dtype=np.uint8)
WEIGHTS = np.random.default_rng(1).normal(0, 0.02, (CLASSES, 12)).astype(np.float32)
ROWS = np.random.default_rng(2).normal(size=(CLASSES, 2, 2)).astype(np.float32)


def classifier(weights: np.ndarray, rows: np.ndarray | None = ROWS) -> onnx.ModelProto:
    """Return a graph with logits `W x`.

    The map of a class is the mean color of each position times the class's `rows`.
    """
    constants = {
        "weights": weights.T.astype(np.float32),
        "size": np.array([-1, 12]),
        "color": np.array([3]),
        "zero": np.array(0),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["x", "size"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
    ]
    inputs = [helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", 2, 2, 3])]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", CLASSES])]
    if rows is not None:
        constants["rows"] = rows.astype(np.float32)
        nodes += [
            helper.make_node("ArgMax", ["logits"], ["top"], axis=1, keepdims=0),
            helper.make_node("Less", ["class_index", "zero"], ["is_free"]),
            helper.make_node("Where", ["is_free", "top", "class_index"], ["picked"]),
            helper.make_node("Gather", ["rows", "picked"], ["row"]),
            helper.make_node("ReduceMean", ["x", "color"], ["cells"], keepdims=0),
            helper.make_node("Mul", ["cells", "row"], ["saliency_map"]),
        ]
        inputs.append(helper.make_tensor_value_info("class_index", TensorProto.INT64, [1]))
        outputs.insert(0, helper.make_tensor_value_info("saliency_map", TensorProto.FLOAT, ["n", 2, 2]))
    stored = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "classifier", inputs, outputs, stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return model


def logits_of(weights: np.ndarray, images: np.ndarray = IMAGES) -> np.ndarray:
    return images.reshape(len(images), 12).astype(float) @ weights.T.astype(float)


def relative_error(exact: np.ndarray, found: np.ndarray) -> float:
    """Return the mean over images of the error's variance relative to the logits' variance."""
    return float(np.mean([np.var(b - a) / np.var(a) for a, b in zip(exact, found, strict=True)]))


def correlation(exact: np.ndarray, found: np.ndarray, images: np.ndarray = IMAGES) -> float:
    """Return the mean correlation of the maps of the fp32 graph's top-1 classes."""
    positions, tops = images.astype(float).mean(axis=3), logits_of(WEIGHTS, images).argmax(axis=1)
    scores = [
        np.corrcoef((position * exact[top]).ravel(), (position * found[top]).ravel())[0, 1]
        for position, top in zip(positions, tops, strict=True)
    ]
    return float(np.mean(scores))


@pytest.fixture(scope="module")
def coarse() -> np.ndarray:
    """Return perturbed weights that change some predictions."""
    weights = WEIGHTS + np.random.default_rng(5).normal(0, 0.01, WEIGHTS.shape).astype(np.float32)
    changed = logits_of(weights).argmax(axis=1) != logits_of(WEIGHTS).argmax(axis=1)
    assert 1 <= changed.sum() < len(IMAGES) - 1
    return weights


@pytest.mark.parametrize("labeled", [False, True])
def test_fidelity_matches_loop_implementation(coarse: np.ndarray, labeled: bool) -> None:
    exact, found = logits_of(WEIGHTS), logits_of(coarse)
    targets = np.array([0, 1, 2, 3, *exact.argmax(axis=1)[4:]])
    rows = ROWS + 0.3
    evaluator = FidelityEvaluator(classifier(WEIGHTS), IMAGES, targets if labeled else None)
    kept = evaluator.evaluate(classifier(coarse, rows))
    same = exact.argmax(axis=1) == found.argmax(axis=1)
    right = [predictions.argmax(axis=1) == targets for predictions in (exact, found)]
    lost = right[0].astype(float) - right[1] if labeled else 1.0 - same
    assert len(evaluator) == len(IMAGES)
    assert kept.agreement == pytest.approx(same.mean())
    assert kept.accuracy == (pytest.approx(right[1].mean()) if labeled else None)
    assert kept.drop_points == pytest.approx(100 * lost.mean())
    ends = mean_interval(lost, DIFFERENCE)
    assert ends is not None and kept.most_drop_points == pytest.approx(100 * ends.high)
    assert kept.logits_error == pytest.approx(relative_error(exact, found), rel=1e-4)
    assert kept.map_pearson == pytest.approx(correlation(ROWS, rows), abs=1e-5)


def test_common_offset_of_logits_is_no_error(coarse: np.ndarray) -> None:
    kept = FidelityEvaluator(classifier(WEIGHTS), IMAGES).evaluate(classifier(WEIGHTS + np.float32(0.01)))
    assert kept.logits_error < 1e-6 and kept.agreement == 1


def test_fp32_graph_has_no_loss() -> None:
    itself = FidelityEvaluator(classifier(WEIGHTS), IMAGES, np.zeros(len(IMAGES), np.int64)).itself
    assert (itself.agreement, itself.drop_points, itself.logits_error) == (1, 0, 0)
    assert itself.accuracy == pytest.approx((logits_of(WEIGHTS).argmax(axis=1) == 0).mean())
    assert itself.map_pearson == pytest.approx(1)
    assert itself.loss == pytest.approx(0)


def test_subset_of_images_is_evenly_spaced(coarse: np.ndarray) -> None:
    targets = np.arange(9) % CLASSES
    some = [0, 2, 4, 6]  # 9 · k // 4
    kept = FidelityEvaluator(classifier(WEIGHTS), IMAGES, targets).evaluate(classifier(coarse, ROWS - 0.2), 4)
    exact, found = logits_of(WEIGHTS, IMAGES[some]), logits_of(coarse, IMAGES[some])
    assert kept.accuracy == pytest.approx((found.argmax(axis=1) == targets[some]).mean())
    assert kept.logits_error == pytest.approx(relative_error(exact, found), rel=1e-4)
    assert kept.map_pearson == pytest.approx(correlation(ROWS, ROWS - 0.2, IMAGES[some]), abs=1e-5)


def test_graph_without_map_has_no_map_loss() -> None:
    for float_rows, rows in ((ROWS, None), (None, ROWS), (None, None)):
        kept = FidelityEvaluator(classifier(WEIGHTS, float_rows), IMAGES).evaluate(classifier(WEIGHTS, rows))
        assert kept.map_pearson is None and kept.loss == pytest.approx(0, abs=1e-9)


def test_lost_maps_score_zero_and_constant_maps_are_skipped() -> None:
    top = logits_of(WEIGHTS).argmax(axis=1)
    first = top == top[0]
    assert 0 < first.sum() < len(IMAGES)
    partly = ROWS.copy()
    partly[top[0]] = 0
    lost = FidelityEvaluator(classifier(WEIGHTS), IMAGES).evaluate(classifier(WEIGHTS, partly))
    assert lost.map_pearson == pytest.approx((~first).mean())
    gained = FidelityEvaluator(classifier(WEIGHTS, partly), IMAGES).evaluate(classifier(WEIGHTS, -ROWS))
    assert gained.map_pearson == pytest.approx(correlation_without(first, -ROWS))
    never = FidelityEvaluator(classifier(WEIGHTS, 0 * ROWS), IMAGES).evaluate(classifier(WEIGHTS, ROWS))
    assert never.map_pearson == 1


def correlation_without(left_out: np.ndarray, rows: np.ndarray) -> float:
    return correlation(ROWS, rows, IMAGES[~left_out])


@pytest.mark.parametrize("broken", [np.nan, 1e30])
def test_nonfinite_logits_have_the_largest_error(broken: float) -> None:
    weights = WEIGHTS.copy()
    weights[1, 0] = broken
    images = IMAGES.copy()
    images[:, 0, 0, 0] = 255
    with np.errstate(all="ignore"):
        kept = FidelityEvaluator(classifier(WEIGHTS), images).evaluate(classifier(weights))
    assert kept.logits_error == 1e6


def test_constant_logits_use_a_minimum_variance() -> None:
    """The mean square of an error of (10, 0, 0, 0)·1e-7, divided by 1e-12 instead of a variance of 0."""
    weights = np.zeros((CLASSES, 12), np.float32)
    weights[0, 0] = 1e-8
    image = np.zeros((1, 2, 2, 3), np.uint8)
    image[0, 0, 0, 0] = 100
    kept = FidelityEvaluator(classifier(np.zeros_like(weights)), image).evaluate(classifier(weights))
    assert kept.logits_error == pytest.approx(np.var([1e-6, 0, 0, 0]) / 1e-12, rel=1e-4)


def test_fidelity_and_calibration_use_exact_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def noted(model: onnx.ModelProto, threads: int = 1, *, exact_sums: bool) -> ort.InferenceSession:
        session = open_session(model, threads, exact_sums=exact_sums)
        opened.append(int8_arithmetic(session))
        return session

    for module in (fidelity, calibration_ranges):
        monkeypatch.setattr(module, "open_session", noted)
    model = classifier(WEIGHTS)
    FidelityEvaluator(model, IMAGES).evaluate(model)
    calibration_ranges.observe(model, ["logits"], IMAGES, lambda _: None)
    assert opened == ["exact sums"] * 4


def test_loss_combines_logits_and_maps() -> None:
    kept = Fidelity(0.9, None, 10.0, 12.0, 0.04, 0.97)
    assert kept.loss == pytest.approx(0.04 / 2 + 0.03)
    assert Fidelity(0.9, None, 10.0, 12.0, 0.04, None).loss == pytest.approx(0.02)
    written = kept.to_dict()
    assert math.isclose(written.pop("loss"), kept.loss) and written.pop("arithmetic") == "exact sums"
    assert Fidelity(**written) == kept
