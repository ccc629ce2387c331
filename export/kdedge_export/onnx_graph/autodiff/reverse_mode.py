"""The derivative of a graph's tail, written as ONNX nodes: reverse differentiation at export time.

Each rule takes the gradient of the logit with respect to a node's output and adds the nodes that give it with
respect to the inputs that vary. Quantizing is differentiated straight through (Bengio et al., 2013): rounding has
no slope of its own.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx

from kdedge_export.onnx_graph.autodiff.arithmetic import ARITHMETIC
from kdedge_export.onnx_graph.autodiff.attention import ATTENTION, product
from kdedge_export.onnx_graph.autodiff.class_token import only_row
from kdedge_export.onnx_graph.autodiff.context import CannotDifferentiate, Rule, Seed, Step, Values
from kdedge_export.onnx_graph.autodiff.elementwise import ELEMENTWISE
from kdedge_export.onnx_graph.autodiff.min_max import EXTREMES
from kdedge_export.onnx_graph.autodiff.normalization_ops import NORMS
from kdedge_export.onnx_graph.autodiff.reductions import REDUCTIONS
from kdedge_export.onnx_graph.autodiff.shape_ops import MOVES, put_back
from kdedge_export.onnx_graph.builder import Builder
from kdedge_export.onnx_graph.graph_index import Array, GraphView
from kdedge_export.onnx_graph.node_attributes import attributes
from kdedge_export.onnx_graph.pooling import pooled_axes

__all__ = ["gradients"]

_TWO_OPERANDS_SINCE = 11
"""The opset since which a Gemm may go without a bias."""


def gradients(
    builder: Builder,
    view: GraphView,
    values: Values,
    logits: str,
    explained: str,
    one_hot: str,
    source: str,
    more_rules: Mapping[str, Rule] = MappingProxyType({}),
    *,
    all_whole: bool = False,
) -> dict[str, str]:
    """Add the nodes that give the derivatives of each image's explained logit.

    Args:
        builder: takes the nodes.
        view: the graph.
        values: the tail's tensors in an example run.
        logits: the tensor `[N, K]` or `[N, K, 1, 1]`.
        explained: int64 `[N]`.
        one_hot: of `explained`, in the shape and type of the logits.
        source: the first tensor to differentiate with respect to.
        more_rules: by operator, for those that have none here.
        all_whole: ask for those of tensors of which a row alone moves the logits, too.

    Returns:
        By the name of every tensor from the source to the logits, that of its gradient, of the same shape; unless
        `all_whole`, without those of which a row alone moves them.

    Raises:
        CannotDifferentiate: a node of the tail has no rule.
    """
    rules = _RULES | dict(more_rules)
    path = [at for at in view.between(source, logits) if _has_slope(view.nodes[at], values)]
    for at in path:
        node = view.nodes[at]
        if node.op_type not in rules or node.domain not in ("", "ai.onnx"):
            raise CannotDifferentiate(node.op_type)
    seed = Seed(one_hot, explained, len(values[logits]))
    grads = {logits: one_hot}
    wanted = frozenset({source}.union(*(view.nodes[at].output for at in path)))
    row = None if all_whole else only_row(builder, view, values, path)
    if row is not None:
        values = {**values, **row.values}
        wanted |= {part for part, whole in row.whole.items() if whole in wanted}
    for at in reversed(path):
        node = view.nodes[at] if row is None else row.nodes.get(at, view.nodes[at])
        own = {name: grads[name] for name in node.output if name in grads}
        if not own:  # only what has no slope takes it
            continue
        step = Step(builder, view, values, node, own, seed, wanted)
        for name, part in rules[node.op_type](step).items():
            if row is not None and (whole := row.leaves_at(name)):
                name, part = whole, put_back(step, part, whole, 1, np.array([row.number]))
            builder.sum_into(grads, name, part)
    if row is not None:
        builder.drop_unused(row.whole)
    return grads


def _has_slope(node: onnx.NodeProto, values: Values) -> bool:
    """Whether a node gives numbers: conditions and positions change in jumps, and are constant between them.

    What is quantized does so too, but stands for what it was.
    """
    return node.op_type == "QuantizeLinear" or any(values[name].dtype.kind == "f" for name in node.output if name)


def _cast(step: Step) -> dict[str, str]:
    return {step.node.input[0]: step.builder.cast(step.grad, step.values[step.node.input[0]].dtype)}


def _row_of(step: Step, weight: str, *, classes_first: bool) -> str:
    """The explained class's row of the classifier: what a product with a one-hot vector would select."""
    row = step.builder.add("Gather", weight, step.seed.explained, axis=0 if classes_first else 1)
    return row if classes_first else step.builder.add("Transpose", row, perm=[1, 0])


def _gemm(step: Step) -> dict[str, str]:
    given = attributes(step.node)
    x, weight = step.node.input[:2]
    if given.get("transA", 0) or not step.view.is_weight(weight):
        raise CannotDifferentiate("Gemm of two activations")
    classes_first = bool(given.get("transB", 0))
    if step.grad == step.seed.tensor:
        back = _row_of(step, weight, classes_first=classes_first)
    else:
        # Its third operand may be left out since opset 11.
        nothing = [] if step.builder.opset >= _TWO_OPERANDS_SINCE else [step.number(0.0)]
        back = step.builder.add("Gemm", step.grad, weight, *nothing, transB=int(not classes_first))
    alpha = given.get("alpha", 1.0)
    return {x: back if alpha == 1.0 else step.times(back, step.number(alpha))}


def _matmul(step: Step) -> dict[str, str]:
    x, weight = step.node.input
    if not step.view.is_weight(weight) or len(step.shape(weight)) != 2:
        return product(step)
    if step.grad == step.seed.tensor and len(step.shape(x)) == 2:
        return {x: _row_of(step, weight, classes_first=False)}
    return {x: step.builder.add("MatMul", step.grad, step.builder.add("Transpose", weight, perm=[1, 0]))}


def _conv(step: Step) -> dict[str, str]:
    given = attributes(step.node)
    weight = step.node.input[1]
    if given.get("auto_pad", b"NOTSET") != b"NOTSET":
        raise CannotDifferentiate("Conv with automatic padding")
    if not step.view.is_weight(weight):
        raise CannotDifferentiate("Conv of two activations")
    kept: dict[str, Any] = {
        name: given[name] for name in ("dilations", "group", "kernel_shape", "pads", "strides") if name in given
    }
    kernel = step.shape(weight)[2:]
    return {step.node.input[0]: _spread(step, weight, kernel, kept)}


def _spread(step: Step, weight: str, kernel: tuple[int, ...], given: dict[str, Any]) -> str:
    """The transposed convolution of a gradient, to the size that the convolution's input had."""
    sizes, outputs = (step.shape(name)[2:] for name in (step.node.input[0], step.node.output[0]))
    strides, dilations = (given.get(name, [1] * len(kernel)) for name in ("strides", "dilations"))
    pads = given.get("pads", [0] * 2 * len(kernel))
    reached = [
        (outputs[axis] - 1) * strides[axis] + (side - 1) * dilations[axis] + 1 - pads[axis] - pads[axis + len(kernel)]
        for axis, side in enumerate(kernel)
    ]
    # What is left at the end, where no whole stride fits.
    unseen = [size - reach for size, reach in zip(sizes, reached, strict=True)]
    if any(not 0 <= left < stride for left, stride in zip(unseen, strides, strict=True)):
        raise CannotDifferentiate(f"{step.node.op_type} that rounds its size up")
    return step.builder.add("ConvTranspose", step.grad, weight, **given, output_padding=unseen)


def _mean(step: Step) -> dict[str, str]:
    x = step.node.input[0]
    axes = pooled_axes(step.view, step.node, len(step.shape(x)), step.shape(step.node.output[0]))
    if axes is None and step.node.op_type == "AveragePool":
        return {x: _windows(step)}
    if axes is None:
        raise CannotDifferentiate(f"{step.node.op_type} over axes that are not constant")
    if 0 in axes:
        raise CannotDifferentiate("mean over the batch")
    kept = [1 if axis in axes else size for axis, size in enumerate(step.shape(x))]
    spread = step.builder.reshape(step.grad, [-1, *kept[1:]])
    cells = step.builder.add("Div", step.builder.add("Size", x), step.builder.add("Size", step.node.output[0]))
    even = step.builder.add("Div", spread, step.builder.cast(cells, step.values[x].dtype))
    return {x: step.builder.add("Expand", even, step.builder.add("Shape", x))}


def _windows(step: Step) -> str:
    """An average over windows is a convolution of each channel, by one over how many cells of the picture it sees."""
    given = attributes(step.node)
    if given.get("ceil_mode", 0) or given.get("auto_pad", b"NOTSET") != b"NOTSET":
        raise CannotDifferentiate("AveragePool that rounds its size up")
    channels, kernel = step.shape(step.node.input[0])[1], tuple(given["kernel_shape"])
    kept: dict[str, Any] = {name: given[name] for name in ("kernel_shape", "strides", "pads") if name in given}
    dtype = step.values[step.node.output[0]].dtype
    counts_pads = bool(given.get("count_include_pad", 0)) or not any(given.get("pads", []))
    even = np.full((channels, 1, *kernel), 1 / math.prod(kernel) if counts_pads else 1, dtype=dtype)
    if not counts_pads:
        seen = step.builder.constant(_cells_seen(step, kernel, given).astype(dtype))
        step = replace(step, grads={step.node.output[0]: step.builder.add("Div", step.grad, seen)})
    return _spread(step, step.builder.constant(even), kernel, kept | {"group": channels})


def _cells_seen(step: Step, kernel: tuple[int, ...], given: dict[str, Any]) -> Array:
    """How many cells that are not padding each window holds."""
    sizes, outputs = (step.shape(name)[2:] for name in (step.node.input[0], step.node.output[0]))
    seen = np.ones((), dtype=np.int64)
    for axis, side in enumerate(kernel):
        starts = np.arange(outputs[axis]) * given.get("strides", [1] * len(kernel))[axis] - given["pads"][axis]
        inside = np.minimum(starts + side, sizes[axis]) - np.maximum(starts, 0)
        seen = np.multiply.outer(seen, inside)
    return seen


_RULES: dict[str, Rule] = {
    **dict.fromkeys(("GlobalAveragePool", "AveragePool", "ReduceMean"), _mean),
    "Cast": _cast,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Conv": _conv,
    **ARITHMETIC,
    **MOVES,
    **NORMS,
    **ELEMENTWISE,
    **ATTENTION,
    **REDUCTIONS,
    **EXTREMES,
}
