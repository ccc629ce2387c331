"""Derivative rules of ONNX operators, compared with PyTorch's autograd."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx_toys import node
from torch import Tensor
from torch.nn import functional as F

from kdedge_export.onnx_graph.autodiff import CannotDifferentiate, gradients
from kdedge_export.onnx_graph.builder import NodeBuilder
from kdedge_export.onnx_graph.graph_index import GraphIndex, run_graph
from kdedge_export.onnx_graph.spatial.target_candidates import has_weights

IMAGES, CLASSES = 2, 3
SHAPE, PLANES = (IMAGES, 4, 6), (IMAGES, 3, 7, 6)


@dataclass(frozen=True)
class Case:
    """Nodes from `x` to `y`, and the same function in PyTorch."""

    function: Callable[[Tensor], Tensor]
    nodes: tuple[onnx.NodeProto, ...]
    constants: dict[str, Any] = field(default_factory=dict)
    opset: int = 17
    shape: tuple[int, ...] = SHAPE


def one(op_type: str, function: Callable[[Tensor], Tensor], *inputs: str, **rest: Any) -> Case:
    """Return a case of a single node with `x` as its first input."""
    of_case = {name: rest.pop(name) for name in ("constants", "opset", "shape") if name in rest}
    return Case(function, (node(op_type, ["x", *inputs], "y", **rest),), **of_case)


MATRIX = np.random.default_rng(3).normal(size=(5, 4)).astype(np.float32)
STACK = np.random.default_rng(4).normal(size=(3, 1, 6, 2)).astype(np.float32)
GAIN = np.random.default_rng(5).normal(size=6).astype(np.float32)
EACH = np.random.default_rng(6).normal(size=(4, 1)).astype(np.float32)
HEADS = (IMAGES, 2, 5, 4)
SCORES = np.random.default_rng(8).normal(size=(5, 5)).astype(np.float32) + 2 * np.eye(5, dtype=np.float32)
TURN = node("Transpose", ["x"], "turned", perm=[0, 2, 1])

CASES = {
    "softmax over the last axis": one("Softmax", lambda x: x.softmax(-1)),
    "softmax over another axis": one("Softmax", lambda x: x.softmax(1), axis=1),
    "softmax of opset 11": one("Softmax", lambda x: x.softmax(-1), axis=2, opset=11),
    "GELU with tanh": one("Gelu", lambda x: F.gelu(x, approximate="tanh"), approximate="tanh", opset=20),
    "layer normalization": one(
        "LayerNormalization",
        lambda x: F.layer_norm(x, (6,), torch.from_numpy(GAIN), eps=1e-3),
        "gain",
        epsilon=1e-3,
        constants={"gain": GAIN},
    ),
    "instance normalization": one(
        "InstanceNormalization",
        lambda x: F.instance_norm(x, weight=torch.from_numpy(GAIN[:3]), eps=1e-3),
        "gain",
        "none",
        epsilon=1e-3,
        constants={"gain": GAIN[:3], "none": np.zeros(3, np.float32)},
        shape=PLANES,
    ),
    "group normalization": one(
        "GroupNormalization",
        lambda x: F.group_norm(x, 2, torch.from_numpy(GAIN), eps=1e-3),
        "gain",
        "none",
        num_groups=2,
        epsilon=1e-3,
        constants={"gain": GAIN, "none": np.zeros(6, np.float32)},
        opset=21,
        shape=(IMAGES, 6, 3, 4),
    ),
    "RMS normalization": one(
        "RMSNormalization",
        lambda x: F.rms_norm(x, (6,), torch.from_numpy(GAIN), eps=1e-3),
        "gain",
        epsilon=1e-3,
        constants={"gain": GAIN},
        opset=23,
    ),
    "fused attention": Case(
        lambda x: F.scaled_dot_product_attention(x, x.exp(), x, torch.from_numpy(SCORES)),
        (node("Exp", ["x"], "keys"), node("Attention", ["x", "keys", "x", "mask"], "y")),
        {"mask": SCORES},
        opset=23,
        shape=HEADS,
    ),
    "fused causal attention": Case(
        lambda x: F.scaled_dot_product_attention(x, x, x.exp(), torch.from_numpy(SCORES > 0), scale=0.3),
        (node("Exp", ["x"], "values"), node("Attention", ["x", "x", "values", "mask"], "y", scale=0.3)),
        {"mask": SCORES > 0},
        opset=23,
        shape=HEADS,
    ),
    "sum": one("ReduceSum", lambda x: x.sum(1), "axes", keepdims=0, constants={"axes": [1]}),
    "L2 norm": one("ReduceL2", lambda x: x.norm(dim=2, keepdim=True), axes=[-1]),
    "L2 norm with its axis as an input": one(
        "ReduceL2", lambda x: x.norm(dim=1), "axes", keepdims=0, constants={"axes": [1]}, opset=18
    ),
    "average pooling excluding padding": one(
        "AveragePool",
        lambda x: F.avg_pool2d(x, (3, 2), 2, (1, 0), count_include_pad=False),
        kernel_shape=[3, 2],
        strides=[2, 2],
        pads=[1, 0, 1, 0],
        shape=PLANES,
    ),
    "average pooling including padding": one(
        "AveragePool",
        lambda x: F.avg_pool2d(x, 3, 1, 1),
        kernel_shape=[3, 3],
        pads=[1, 1, 1, 1],
        count_include_pad=1,
        shape=PLANES,
    ),
    "average pooling of the whole map": one(
        "AveragePool", lambda x: x.mean((2, 3), keepdim=True), kernel_shape=[7, 6], shape=PLANES
    ),
    "maximum of two": one("Max", lambda x: torch.maximum(x, torch.from_numpy(GAIN)), "m", constants={"m": GAIN}),
    "minimum of three with a repeated input": Case(
        lambda x: torch.minimum(torch.minimum(x, -x), torch.from_numpy(GAIN)),
        (node("Neg", ["x"], "less"), node("Min", ["x", "less", "m"], "y")),
        {"m": GAIN},
    ),
    "ReLU before float equality": one(
        "Max", lambda x: x.relu(), "m", constants={"m": np.zeros((), np.float32)}, opset=9
    ),
    "maximum along an axis": one("ReduceMax", lambda x: x.amax(1), axes=[1], keepdims=0),
    "minimum with ties": Case(
        lambda x: x.clamp(min=0.5).amin(2),
        (node("Max", ["x", "m"], "held"), node("ReduceMin", ["held", "axes"], "y", keepdims=0)),
        {"m": np.full((), 0.5, np.float32), "axes": [-1]},
        opset=18,
    ),
    "global max-pooling": one("GlobalMaxPool", lambda x: x.amax((2, 3), keepdim=True), shape=PLANES),
    "max-pooling with one window": one("MaxPool", lambda x: F.max_pool2d(x, (7, 6)), kernel_shape=[7, 6], shape=PLANES),
    "reciprocal": one("Reciprocal", lambda x: 1 / x),
    "TensorFlow's rsqrt": Case(
        lambda x: (x * x + 0.5).rsqrt(),
        (
            node("Mul", ["x", "x"], "squared"),
            node("Add", ["squared", "m"], "sum"),
            node("Sqrt", ["sum"], "root"),
            node("Reciprocal", ["root"], "y"),
        ),
        {"m": np.full((), 0.5, np.float32)},
    ),
    "absolute value": one("Abs", lambda x: x.abs()),
    "logarithm of the absolute value": Case(
        lambda x: x.abs().log(), (node("Abs", ["x"], "size"), node("Log", ["size"], "y"))
    ),
    "ELU": one("Elu", lambda x: F.elu(x, 0.7), alpha=0.7),
    "SELU": one("Selu", F.selu),
    "PReLU": one("PRelu", lambda x: torch.where(x > 0, x, x * torch.from_numpy(GAIN)), "m", constants={"m": GAIN}),
    "Softsign": one("Softsign", F.softsign),
    "concatenation in opset 9": Case(
        lambda x: torch.cat([x, -2 * x], 1) ** 2,
        (
            node("Mul", ["x", "m"], "less"),
            node("Concat", ["x", "less"], "both", axis=1),
            node("Mul", ["both", "both"], "y"),
        ),
        {"m": np.full((), -2, np.float32)},
        opset=9,
    ),
    "zero padding in opset 9": one("Pad", lambda x: F.pad(x, (2, 0, 1, 1)), pads=[0, 1, 2, 0, 1, 0], opset=9),
    "product with its transpose": Case(lambda x: x @ x.mT, (TURN, node("MatMul", ["x", "turned"], "y"))),
    "product with itself": one("MatMul", lambda x: x @ x, "x", shape=(IMAGES, 4, 4)),
    "matrix from the left": Case(
        lambda x: torch.from_numpy(MATRIX) @ x, (node("MatMul", ["m", "x"], "y"),), {"m": MATRIX}
    ),
    "broadcast over a stack of matrices": Case(
        lambda x: (x @ torch.from_numpy(STACK)).transpose(0, 1),
        (node("MatMul", ["x", "m"], "products"), node("Transpose", ["products"], "y", perm=[1, 0, 2, 3])),
        {"m": STACK},
    ),
    "Einsum": one("Einsum", lambda x: x @ x.mT, "x", equation="bij, bkj -> bik"),
    "Einsum with a matrix": one(
        "Einsum",
        lambda x: torch.from_numpy(MATRIX) @ x,
        "m",
        equation="bij,ki->bkj",
        constants={"m": MATRIX},
    ),
    "one row": one("Gather", lambda x: x[:, 2], "at", axis=1, constants={"at": 2}),
    "one row from the end": one("Gather", lambda x: x[:, -1], "at", axis=-2, constants={"at": -1}),
    "row of tokens that are processed separately": Case(
        lambda x: (x + F.gelu(F.layer_norm(x, (6,), torch.from_numpy(GAIN))) * torch.from_numpy(EACH))[:, 2],
        (
            node("LayerNormalization", ["x", "gain"], "normed"),
            node("Gelu", ["normed"], "lively"),
            node("Mul", ["lively", "each"], "scaled"),
            node("Add", ["x", "scaled"], "all"),
            node("Gather", ["all", "at"], "y", axis=1),
        ),
        {"gain": GAIN, "each": EACH, "at": 2},
        opset=20,
    ),
    "repeated rows": one("Gather", lambda x: x[:, [3, 0, 3, 3]], "at", axis=1, constants={"at": [3, 0, -1, 3]}),
    "repeated positions of planes": Case(
        lambda x: x[:, :, [0, 2, 2]][..., [1, 1, 5]],
        (
            node("Transpose", ["x"], "first", perm=[2, 3, 0, 1]),
            node("GatherND", ["first", "at"], "cells"),
            node("Transpose", ["cells"], "y", perm=[2, 3, 0, 1]),
        ),
        {"at": [[[row, column] for column in (1, 1, 5)] for row in (0, 2, 2)]},
        shape=PLANES,
    ),
    "reordered rows": one("Gather", lambda x: x[:, [3, 0]], "at", axis=1, constants={"at": [3, 0]}),
    "rows in opset 11": one("Gather", lambda x: x[..., 1], "at", axis=2, constants={"at": 1}, opset=11),
    "one of three with batch as the second axis": Case(
        lambda x: x.reshape(IMAGES, 4, 3, 2).permute(2, 0, 1, 3)[1],
        (
            node("Reshape", ["x", "shape"], "split"),
            node("Transpose", ["split"], "first", perm=[2, 0, 1, 3]),
            node("Gather", ["first", "at"], "y", axis=0),
        ),
        {"shape": [IMAGES, 4, 3, 2], "at": 1},
    ),
    "slice of three with batch as the second axis": Case(
        lambda x: x.reshape(IMAGES, 4, 3, 2).permute(2, 0, 1, 3)[1:2].squeeze(0),
        (
            node("Reshape", ["x", "shape"], "split"),
            node("Transpose", ["split"], "first", perm=[2, 0, 1, 3]),
            node("Slice", ["first", "one", "two", "zero"], "part"),
            node("Squeeze", ["part", "zero"], "y"),
        ),
        {"shape": [IMAGES, 4, 3, 2], "zero": [0], "one": [1], "two": [2]},
    ),
    "every second column": one(
        "Slice",
        lambda x: x[..., 1:6:2],
        "one",
        "six",
        "axis",
        "two",
        constants={"one": [1], "six": [6], "axis": [2], "two": [2]},
    ),
    "slice with a computed end": Case(
        lambda x: x[:, :3],
        (node("Add", ["one", "two"], "three"), node("Slice", ["x", "zero", "three", "one"], "y")),
        {"zero": [0], "one": [1], "two": [2]},
    ),
    "split with an unused part": Case(
        lambda x: x[..., :1] * x[..., 4:],
        (
            helper.make_node("Split", ["x", "sizes"], ["a", "b", "c"], name="the parts", axis=2),
            node("Mul", ["a", "c"], "y"),
        ),
        {"sizes": [1, 3, 2]},
    ),
    "split without the first part": Case(
        lambda x: x[:, 1:],
        (helper.make_node("Split", ["x", "sizes"], ["a", "y"], name="the parts", axis=1),),
        {"sizes": [1, 3]},
    ),
    "NaN replaced by zero": Case(
        lambda x: x.square().nan_to_num(0.0),
        (node("Mul", ["x", "x"], "two"), node("IsNaN", ["two"], "gap"), node("Where", ["gap", "zero", "two"], "y")),
        {"zero": np.zeros((), np.float32)},
    ),
    "selection between two repeated tensors": Case(
        lambda x: torch.where(x[:, :1] > 0, x, x[..., :1] ** 2),
        (
            node("Slice", ["x", "zero", "one", "one"], "row"),
            node("Slice", ["x", "zero", "one", "two"], "column"),
            node("Mul", ["column", "column"], "squares"),
            node("Greater", ["row", "nothing"], "is_so"),
            node("Where", ["is_so", "x", "squares"], "y"),
        ),
        {"zero": [0], "one": [1], "two": [2], "nothing": np.zeros((), np.float32)},
    ),
    "repeated along an axis": Case(
        lambda x: x[:, :1].expand(IMAGES, 5, 6) ** 2,
        (
            node("Slice", ["x", "zero", "one", "one"], "part"),
            node("Expand", ["part", "shape"], "wide"),
            node("Mul", ["wide", "wide"], "y"),
        ),
        {"zero": [0], "one": [1], "shape": [IMAGES, 5, 6]},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_derivative_equals_autograd(name: str) -> None:
    case = CASES[name]
    for seed in (1, 2):
        x = torch.from_numpy(np.random.default_rng(seed).normal(size=case.shape).astype(np.float32)).requires_grad_()
        weights = np.random.default_rng(7).normal(size=(case.function(x)[0].numel(), CLASSES)).astype(np.float32)
        logits = case.function(x).flatten(1) @ torch.from_numpy(weights)
        classes = np.array([2, 0])
        logits.gather(1, torch.from_numpy(classes)[:, None]).sum().backward()
        assert x.grad is not None
        expected = x.grad.numpy()
        measured = _by_graph(case, weights, x.detach().numpy(), classes)
        assert np.abs(measured - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("name", "case"),
    [
        ("Gather at varying positions", one("Gather", lambda x: x, "at", axis=1, constants={"at": [[0, 1], [2, 3]]})),
        (
            "Gather with repeated values before opset 16",
            one("Gather", lambda x: x, "at", axis=1, constants={"at": [1, 1]}, opset=15),
        ),
        (
            "Gather with repeated values on the first axis",
            one("Gather", lambda x: x, "at", constants={"at": [1, 1]}),
        ),
        (
            "GatherND at varying positions",
            one("GatherND", lambda x: x, "at", batch_dims=1, constants={"at": [[1], [1]]}),
        ),
        ("Einsum of this form", one("Einsum", lambda x: x, equation="bij->bi")),
        (
            "Einsum that sums one operand alone",
            one("Einsum", lambda x: x, "m", equation="bij,ki->bk", constants={"m": MATRIX}),
        ),
        ("Attention with a causal mask", one("Attention", lambda x: x, "x", "x", is_causal=1, shape=HEADS)),
        (
            "Attention with merged or shared heads",
            one("Attention", lambda x: x, "x", "x", q_num_heads=2, kv_num_heads=2),
        ),
        ("Gather of the batch", one("Gather", lambda x: x, "at", axis=0, constants={"at": [1, 0]})),
        ("MaxPool over windows", one("MaxPool", lambda x: x, kernel_shape=[2, 2], shape=PLANES)),
        ("ReduceMax over the batch", one("ReduceMax", lambda x: x, axes=[0])),
        ("PRelu with a varying slope", one("PRelu", lambda x: x, "x")),
        ("Softmax over several axes", one("Softmax", lambda x: x, axis=1, opset=11)),
    ],
)
def test_operator_without_a_derivative_is_named(name: str, case: Case) -> None:
    x = np.zeros(case.shape, np.float32)
    with pytest.raises(CannotDifferentiate, match=name):
        _by_graph(case, np.zeros((1, CLASSES), np.float32), x, np.array([0, 0]), runs=False)


def _by_graph(case: Case, weights: np.ndarray, x: np.ndarray, classes: np.ndarray, *, runs: bool = True) -> np.ndarray:
    """Return the derivative of each image's logit computed by the added nodes."""
    tail = [node("Flatten", ["y"], "flat"), node("MatMul", ["flat", "fc"], "logits")]
    held = {
        name: value if isinstance(value, np.ndarray) else np.array(value, np.int64)
        for name, value in case.constants.items()
    } | {"fc": weights}
    graph = helper.make_graph(
        [*case.nodes, *tail],
        "rule",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, case.shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in held.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", case.opset)], ir_version=10)
    view = GraphIndex(model)
    feed = {"x": x}
    names = {item for made in graph.node for item in (*made.input, *made.output)} - held.keys() - {"x"}
    values = held | feed | (run_graph(model, sorted(names), feed, "rule") if runs else _shapes_only(names, case))
    builder = NodeBuilder(view)
    one_hot = builder.constant(np.eye(CLASSES, dtype=np.float32)[classes])
    explained = builder.constant(classes)
    slope = gradients(builder, view, values, "logits", explained, one_hot, "x")["x"]
    builder.write(model)
    found: np.ndarray = run_graph(model, [slope], feed, "rule")[slope]
    return found


def _shapes_only(names: set[str], case: Case) -> dict[str, np.ndarray]:
    return {name: np.zeros((IMAGES, CLASSES) if name == "logits" else case.shape, np.float32) for name in names}


def test_bias_does_not_make_a_layer_of_two_activations() -> None:
    nodes = [
        node("Gemm", ["x", "weight", "bias"], "dense", transB=1),
        node("Gemm", ["x", "dense", "bias"], "scores", transB=1),
        node("MatMul", ["scores", "dense"], "y"),
    ]
    held = {"weight": np.eye(4, dtype=np.float32), "bias": np.zeros(4, np.float32)}
    graph = helper.make_graph(
        nodes,
        "layers",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, 4])],
        [numpy_helper.from_array(value, name) for name, value in held.items()],
    )
    view = GraphIndex(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))
    assert [has_weights(view, at) for at in range(3)] == [True, False, False]
