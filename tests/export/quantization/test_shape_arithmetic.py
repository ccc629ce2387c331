"""Padding that a graph computes from the size of its input, as TensorFlow's `same`, stays exact in int8."""

from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

import kdedge_export
from kdedge_runtime.model import Model

SIDE, CHANNELS, CLASSES = 32, 8, 3


def write_padded(path: Path) -> None:
    """Write a classifier that pads `(ceil(side / 2) - 1) * 2 + 5 - side` rows and columns before its pooling."""
    rng = np.random.default_rng(0)
    numbers = {
        "two": np.int64(2),
        "half": np.float32(0.5),
        "one": np.float32(1),
        "stride": np.float32(2),
        "kernel": np.float32(5),
        "axis": np.zeros(1, np.int64),
        "none": np.zeros(2, np.float32),
        "weight": rng.normal(size=(CHANNELS, 3, 3, 3)).astype(np.float32),
        "dense": rng.normal(size=(CHANNELS, CLASSES)).astype(np.float32),
    }
    node = helper.make_node
    nodes = [
        node("Conv", ["pixels", "weight"], ["features"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("Relu", ["features"], ["active"]),
        node("Shape", ["active"], ["size"]),
        node("Gather", ["size", "two"], ["side"], axis=0),
        node("Cast", ["side"], ["side_float"], to=onnx.TensorProto.FLOAT),
        node("Mul", ["side_float", "half"], ["halved"]),
        node("Ceil", ["halved"], ["steps"]),
        node("Sub", ["steps", "one"], ["last"]),
        node("Mul", ["last", "stride"], ["reached"]),
        node("Add", ["reached", "kernel"], ["needed"]),
        node("Sub", ["needed", "side_float"], ["missing"]),
        node("Unsqueeze", ["missing", "axis"], ["total"]),
        node("Mul", ["total", "half"], ["middle"]),
        node("Floor", ["middle"], ["above"]),
        node("Sub", ["total", "above"], ["below"]),
        node("Concat", ["none", "above", "above", "none", "below", "below"], ["amounts"], axis=0),
        node("Cast", ["amounts"], ["pads"], to=onnx.TensorProto.INT64),
        node("Pad", ["active", "pads"], ["padded"]),
        node("MaxPool", ["padded"], ["pooled"], kernel_shape=[5, 5], strides=[2, 2]),
        node("GlobalAveragePool", ["pooled"], ["mean"]),
        node("Flatten", ["mean"], ["flat"]),
        node("MatMul", ["flat", "dense"], ["logits"]),
    ]
    shapes = ("pixels", ["n", 3, SIDE, SIDE]), ("logits", ["n", CLASSES])
    given, returned = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, size) for name, size in shapes)
    constants = [numpy_helper.from_array(np.asarray(value), name) for name, value in numbers.items()]
    graph = helper.make_graph(nodes, "padded", [given], [returned], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def test_map_keeps_its_size_and_logits_agree(tmp_path: Path) -> None:
    write_padded(tmp_path / "theirs.onnx")
    pixels = kdedge_export.PixelInput(mean=(0.5,) * 3, std=(0.5,) * 3)
    done = kdedge_export.add_saliency(tmp_path / "theirs.onnx", tmp_path / "ours.onnx", pixels=pixels)
    images = np.random.default_rng(1).integers(0, 256, (24, SIDE, SIDE, 3), dtype=np.uint8)
    written = kdedge_export.quantize(done.path, images)
    assert written.path is not None
    fp32, int8 = (Model.load(path).predict(images) for path in (done.path, written.path))
    assert fp32.saliency_map is not None and int8.saliency_map is not None
    assert fp32.saliency_map.shape == int8.saliency_map.shape == (24, SIDE // 2, SIDE // 2)
    correlations = [
        np.corrcoef(one.ravel(), other.ravel())[0, 1]
        for one, other in zip(fp32.saliency_map, int8.saliency_map, strict=True)
    ]
    assert min(correlations) > 0.98
    np.testing.assert_allclose(int8.logits, fp32.logits, atol=0.05 * np.ptp(fp32.logits))
