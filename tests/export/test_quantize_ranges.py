"""Ranges are clipped as their names say, and what clips is chosen by what it costs."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from kdedge_export.quantize.ranges import Histogram, clipped_range, observe


def histogram(values: np.ndarray) -> Histogram:
    counts, _ = np.histogram(values, 2048, (values.min(), values.max()))
    return Histogram(float(values.min()), float(values.max()), counts.astype(float))


@pytest.fixture(scope="module")
def normal() -> np.ndarray:
    return np.random.default_rng(0).normal(size=400_000)


def test_minmax_keeps_everything(normal: np.ndarray) -> None:
    assert clipped_range(histogram(normal), "minmax") == (normal.min(), normal.max())


@pytest.mark.parametrize(("method", "percent"), [("percentile-99.99", 99.99), ("percentile-99.999", 99.999)])
def test_percentiles_are_numpys(normal: np.ndarray, method, percent: float) -> None:
    low, high = clipped_range(histogram(normal), method)
    tail = (100 - percent) / 2
    bin_ = np.ptp(normal) / 2048
    assert low == pytest.approx(np.percentile(normal, tail), abs=1.5 * bin_)
    assert high == pytest.approx(np.percentile(normal, 100 - tail), abs=1.5 * bin_)


def test_entropy_gives_up_a_lonely_outlier_and_nothing_else(normal: np.ndarray) -> None:
    low, high = clipped_range(histogram(np.append(normal, 60.0)), "entropy")
    assert 3 < high < 20 and low < -3
    even = np.linspace(-1, 1, 100_001)
    low, high = clipped_range(histogram(even), "entropy")
    assert (low, high) == pytest.approx((-1, 1), abs=0.02)


def test_the_peak_of_a_rectifier_at_zero_does_not_count(normal: np.ndarray) -> None:
    rectified = np.maximum(normal, 0)
    low, high = clipped_range(histogram(rectified), "entropy")
    assert low == 0 and high > 3


@pytest.mark.parametrize("method", ["minmax", "percentile-99.99", "entropy"])
def test_a_constant_tensor_has_a_range(method) -> None:
    assert clipped_range(histogram(np.full(100, 2.5)), method) == (2.5, 2.5)


def test_histograms_are_those_of_all_images() -> None:
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
