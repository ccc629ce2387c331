"""Classifiers as written by frameworks other than PyTorch, built node by node."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE, CHANNELS, CLASSES = 32, 12, 10
Nodes = Sequence[onnx.NodeProto]


def node(op_type: str, inputs: Sequence[str], output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op_type, list(inputs), [output], name=f"the {output}", **attributes)


def weights(*, seed: int = 0, hidden: int = 16) -> dict[str, np.ndarray]:
    """Return weights: convolution `w`, `b`; dense layers `fc` `[K, C]` with `fc_bias`; hidden layer `one`, `two`."""
    rng = np.random.default_rng(seed)

    def drawn(*shape: int, scale: float = 1.0) -> np.ndarray:
        return (scale * rng.normal(size=shape)).astype(np.float32)

    return {
        "w": drawn(CHANNELS, 3, 4, 4, scale=0.3),
        "b": drawn(CHANNELS, scale=0.3),
        "fc": drawn(CLASSES, CHANNELS),
        "fc_bias": drawn(CLASSES),
        "one": drawn(CHANNELS, hidden),
        "two": drawn(hidden, CLASSES),
    }


def body(image: str = "x") -> list[onnx.NodeProto]:
    """Return nodes from `x` `[N, 3, 32, 32]` to `features` `[N, 12, 8, 8]`."""
    return [node("Conv", [image, "w", "b"], "conv", strides=[4, 4]), node("Relu", ["conv"], "features")]


def head() -> list[onnx.NodeProto]:
    """Return nodes from `features` to `logits`: pooling and one dense layer."""
    return [
        node("GlobalAveragePool", ["features"], "pooled"),
        node("Flatten", ["pooled"], "flat"),
        node("Gemm", ["flat", "fc", "fc_bias"], "logits", transB=1),
    ]


def write(
    path: Path,
    nodes: Nodes,
    constants: dict[str, np.ndarray] | None = None,
    *,
    output: str = "logits",
    shape: Sequence[int | str | None] = ("N", 3, SIDE, SIDE),
    opset: int = 17,
    ir: int = 8,
    dtype: int = TensorProto.FLOAT,
    outputs: Sequence[onnx.ValueInfoProto] = (),
    lists_constants: bool = False,
    **saving: Any,
) -> Path:
    """Save a graph with input `x` and output `[N, 10]`; `lists_constants` declares initializers as inputs too."""
    held = [numpy_helper.from_array(value, name) for name, value in (weights() | (constants or {})).items()]
    used = {name for item in nodes for name in item.input} - {name for item in nodes for name in item.output}
    held = [tensor for tensor in held if tensor.name in used]
    inputs = [helper.make_tensor_value_info("x", dtype, shape)]
    if lists_constants:
        inputs += [helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)) for t in held]
    results = list(outputs) or [helper.make_tensor_value_info(output, dtype, [shape[0], CLASSES])]
    graph = helper.make_graph(list(nodes), "theirs", inputs, results, held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir)
    onnx.save_model(model, path, **saving)
    return path


def tensorflow_body() -> list[onnx.NodeProto]:
    """Return channels-last nodes from `x` `[N, H, W, 3]` to `features` and `pooled`, their mean over axes 1 and 2."""
    return [
        node("Transpose", ["x"], "x_first", perm=[0, 3, 1, 2]),
        node("Conv", ["x_first", "w", "b"], "conv", strides=[4, 4]),
        node("Transpose", ["conv"], "conv_last", perm=[0, 2, 3, 1]),
        node("Relu", ["conv_last"], "features"),
        node("ReduceMean", ["features"], "pooled", axes=[1, 2], keepdims=0),
    ]


def tensorflow_like(path: Path) -> Path:
    """Write a channels-last model as tf2onnx does:

    `[N, H, W, 3]`, a mean over axes 1 and 2, MatMul and Add, softmax.
    """
    nodes = [
        *tensorflow_body(),
        node("MatMul", ["pooled", "one"], "product"),
        node("Add", ["product", "hidden_bias"], "hidden"),
        node("Sigmoid", ["hidden"], "gate"),
        node("Mul", ["hidden", "gate"], "swish"),
        node("MatMul", ["swish", "two"], "product2"),
        node("Add", ["product2", "fc_bias"], "dense"),
        node("Softmax", ["dense"], "probabilities", axis=-1),
    ]
    bias = np.random.default_rng(5).normal(size=16).astype(np.float32)
    return write(path, nodes, {"hidden_bias": bias}, output="probabilities", shape=("N", SIDE, SIDE, 3), opset=13)
