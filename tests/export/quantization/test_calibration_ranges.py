"""Test calibration ranges: clipping methods, entropy thresholds and collected histograms."""

import math

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from kdedge_export.quantization.calibration_ranges import (
    METHODS,
    Histogram,
    _divergence,
    _without_zeros,
    clipped_range,
    observe,
    values_of,
)


def histogram(values: np.ndarray) -> Histogram:
    counts, _ = np.histogram(values, 2048, (values.min(), values.max()))
    return Histogram(float(values.min()), float(values.max()), counts.astype(float))


@pytest.fixture(scope="module")
def normal() -> np.ndarray:
    return np.random.default_rng(0).normal(size=400_000)


def test_minmax_covers_all_values(normal: np.ndarray) -> None:
    assert clipped_range(histogram(normal), "minmax") == (normal.min(), normal.max())


@pytest.mark.parametrize(("method", "percent"), [("percentile-99.99", 99.99), ("percentile-99.999", 99.999)])
def test_percentile_ranges_match_numpy(normal: np.ndarray, method, percent: float) -> None:
    low, high = clipped_range(histogram(normal), method)
    tail = (100 - percent) / 2
    bin_ = np.ptp(normal) / 2048
    assert low == pytest.approx(np.percentile(normal, tail), abs=1.5 * bin_)
    assert high == pytest.approx(np.percentile(normal, 100 - tail), abs=1.5 * bin_)


def test_entropy_clips_only_an_isolated_outlier(normal: np.ndarray) -> None:
    low, high = clipped_range(histogram(np.append(normal, 60.0)), "entropy")
    assert 3 < high < 20 and low < -3
    even = np.linspace(-1, 1, 100_001)
    low, high = clipped_range(histogram(even), "entropy")
    assert (low, high) == pytest.approx((-1, 1), abs=0.02)


def test_entropy_ignores_the_zero_peak_of_relu(normal: np.ndarray) -> None:
    rectified = np.maximum(normal, 0)
    low, high = clipped_range(histogram(rectified), "entropy")
    assert low == 0 and high > 3


@pytest.mark.parametrize("method", ["minmax", "percentile-99.99", "entropy"])
def test_range_of_a_constant_tensor(method) -> None:
    assert clipped_range(histogram(np.full(100, 2.5)), method) == (2.5, 2.5)


def sparse(low: float, high: float, counts: dict[int, float]) -> Histogram:
    """Return a histogram of 2,048 bins with these counts and 0 elsewhere."""
    full = np.zeros(2048)
    full[list(counts)] = list(counts.values())
    return Histogram(low, high, full)


def test_percentile_range_includes_the_boundary_bins() -> None:
    # A tail of 99.99% is 5 of 100,000: the 6 lowest values reach bin 10, the 6 highest bin 2,000.
    found = sparse(-2048, 2048, {3: 4, 10: 2, 1000: 99_988, 2000: 2, 2040: 4})
    assert clipped_range(found, "percentile-99.99") == (-2048 + 2 * 10, -2048 + 2 * 2001)
    # A tail of 99.999% is 0.5: the outermost values are kept.
    assert clipped_range(found, "percentile-99.999") == (-2048 + 2 * 3, -2048 + 2 * 2041)
    # All values in the last bin, and all in the first.
    assert clipped_range(sparse(0, 2048, {2047: 9}), "percentile-99.99") == (2047, 2048)
    assert clipped_range(sparse(0, 2048, {0: 9}), "percentile-99.99") == (0, 1)


def divergence_by_hand(counts: list[float], first: int, last: int) -> float:
    """Return the KL divergence after clipping and merging into 255 levels, each spread over its filled bins."""
    inside = counts[first:last]
    clipped = list(inside)
    clipped[0] += sum(counts[:first])
    clipped[-1] += sum(counts[last:])
    levels: dict[int, list[int]] = {}
    for place in range(len(inside)):
        levels.setdefault(place * 255 // len(inside), []).append(place)
    spread = [0.0] * len(inside)
    for places in levels.values():
        filled = [place for place in places if clipped[place] > 0]
        for place in filled:
            spread[place] = sum(inside[other] for other in places) / len(filled)
    whole, spread = sum(clipped), [max(value, 1e-4) for value in spread]
    ratio = whole / sum(spread)
    return sum(a / whole * math.log(a / b / ratio) for a, b in zip(clipped, spread, strict=True) if a > 0)


@pytest.mark.parametrize(("first", "last"), [(0, 2048), (3, 2000), (900, 1155), (0, 256), (1500, 2048)])
def test_divergence_matches_loop_implementation(first: int, last: int) -> None:
    counts = np.random.default_rng(first).integers(0, 5, 2048).astype(float)
    assert _divergence(counts, first, last) == pytest.approx(divergence_by_hand(counts.tolist(), first, last))


@pytest.mark.parametrize(
    ("low", "place", "expected"),
    [
        (-2.0, 2, 6),  # the larger of its neighbors, 4 and 6
        (-3.0, 3, 8),  # the larger of 5 and 8
        (-1.0, 1, 90),  # the larger of 90, in the first bin, and 50
        (0.0, 0, 5),  # the first bin has one neighbor
        (-2047.0, 2047, 7),  # the last bin as well
        (1.0, None, None),
        (-2049.0, None, None),
    ],
)
def test_zero_peak_is_replaced_by_its_larger_neighbor(low: float, place: int | None, expected: float | None) -> None:
    found = sparse(low, low + 2048, {0: 90, 1: 5, 2: 50, 3: 6, 4: 8, 2046: 7, 2047: 60})
    if place == 2:
        found.counts[1] = 4
    if place == 3:
        found.counts[2] = 5
    after = found.counts.copy()
    if place is not None:
        after[place] = expected
    np.testing.assert_array_equal(_without_zeros(found, np.linspace(found.low, found.high, 2049)), after)


def entropy_by_hand(found: Histogram) -> tuple[float, float]:
    """Try 121 thresholds from the largest absolute value to a sixteenth of it, on whole bins."""
    counts, width = found.counts.tolist(), (found.high - found.low) / 2048
    for place in range(2048):
        if found.low + place * width <= 0 < found.low + (place + 1) * width:
            counts[place] = max(found.counts[other] for other in (place - 1, place + 1) if 0 <= other < 2048)
            break
    reach = max(-found.low, found.high)
    best = (math.inf, found.low, found.high)
    for step in range(121):
        threshold = reach * (1 - step / 120 * 15 / 16)
        first, last = 0, 2048
        while found.low + (first + 1) * width <= -threshold:
            first += 1
        while found.low + (last - 1) * width >= threshold:
            last -= 1
        if last - first < 255:
            break
        cost = divergence_by_hand(counts, first, last)
        if cost < best[0]:
            best = (cost, found.low + first * width, found.low + last * width)
    return best[1:]


@pytest.mark.parametrize(
    "values",
    [
        lambda rng: rng.normal(size=2000),
        lambda rng: np.append(rng.normal(size=20_000), [9.0, -31.0]),
        lambda rng: np.append(rng.normal(size=20_000), 57.0),
        lambda rng: np.append(np.maximum(rng.normal(size=20_000), 0), 21.0),
        lambda rng: -np.append(np.maximum(rng.normal(size=20_000), 0), 21.0),
        lambda rng: 5 + rng.exponential(size=20_000),
        lambda rng: -5 - rng.exponential(size=20_000),
        lambda rng: rng.laplace(size=20_000) ** 3,
        lambda rng: rng.uniform(-1, 3, 20_000),
    ],
    ids=["few", "outliers", "outlier", "rectified", "negative", "above", "below", "cubed", "even"],
)
def test_entropy_range_matches_loop_implementation(values) -> None:
    found = histogram(values(np.random.default_rng(3)))
    assert clipped_range(found, "entropy") == pytest.approx(entropy_by_hand(found), rel=1e-9, abs=1e-9)


def graph_of(nodes: list[onnx.NodeProto], outputs: list[str], constants: dict[str, np.ndarray]) -> onnx.ModelProto:
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", 2, 2, 3])
    results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    stored = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "g", [image], results, stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def test_bin_counts_match_integer_arithmetic() -> None:
    nodes = [
        helper.make_node("Cast", ["image"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["x", "factor"], ["scaled"]),
        helper.make_node("Mul", ["x", "nothing"], ["flat"]),
    ]
    constants = {"factor": np.float32(-3), "nothing": np.float32(0)}
    model = graph_of(nodes, ["scaled", "flat"], {name: np.asarray(value) for name, value in constants.items()})
    images = np.random.default_rng(4).integers(7, 200, (6, 2, 2, 3), dtype=np.uint8)
    found = observe(model, ["x", "scaled", "flat"], images, lambda _: None)
    low, high = int(images.min()), int(images.max())
    for name, sign in (("x", 1), ("scaled", -1)):
        expected = np.zeros(2048)
        for value in images.ravel().tolist():
            # Rounding cannot move a value to another bin, since only the extreme values are near an edge.
            exact = (value - low if sign > 0 else high - value) * 2048 / (high - low)
            assert exact in (0, 2048) or 1e-3 < exact % 1 < 0.999
            expected[min(int(exact), 2047)] += 1
        np.testing.assert_array_equal(found[name].counts, expected)
    assert (found["scaled"].low, found["scaled"].high) == (-3 * high, -3 * low)
    assert found["flat"].counts[0] == images.size == found["flat"].counts.sum()


def test_values_are_yielded_per_image_by_name() -> None:
    nodes = [helper.make_node("Cast", ["image"], ["x"], to=TensorProto.FLOAT), helper.make_node("Neg", ["x"], ["y"])]
    model = graph_of(nodes, ["y"], {})
    before = model.SerializeToString()
    images = np.random.default_rng(5).integers(0, 256, (3, 2, 2, 3), dtype=np.uint8)
    counted: list[int] = []
    found = list(values_of(model, ["y", "x"], images, counted.append))
    assert [list(values) for values in found] == [["y", "x"]] * 3 and counted == [1, 1, 1]
    for values, image in zip(found, images, strict=True):
        np.testing.assert_array_equal(values["x"], image[None].astype(np.float32))
        np.testing.assert_array_equal(values["y"], -image[None].astype(np.float32))
    assert model.SerializeToString() == before


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("ends", [(0.0, 0.0), (-1.5, -1.5)])
def test_range_of_zero_width_is_kept(method, ends: tuple[float, float]) -> None:
    assert clipped_range(sparse(*ends, {0: 10}), method) == ends


def test_histograms_cover_all_images() -> None:
    nodes = [helper.make_node("Cast", ["image"], ["x"], to=TensorProto.FLOAT), helper.make_node("Neg", ["x"], ["y"])]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", 2, 2, 3])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2, 2, 3])
    model = helper.make_model(
        helper.make_graph(nodes, "g", [image], [result]), opset_imports=[helper.make_opsetid("", 20)], ir_version=9
    )
    onnx.checker.check_model(model)
    images = np.random.default_rng(0).integers(0, 256, (5, 2, 2, 3), dtype=np.uint8)
    counted = []
    found = observe(model, ["x", "y"], images, counted.append)
    assert (found["x"].low, found["x"].high) == (images.min(), images.max())
    assert (found["y"].low, found["y"].high) == (-float(images.max()), -float(images.min()))
    for name in ("x", "y"):
        assert found[name].counts.sum() == images.size
    np.testing.assert_array_equal(found["x"].counts.nonzero()[0].size, np.unique(images).size)
    assert sum(counted) == 2 * len(images)
