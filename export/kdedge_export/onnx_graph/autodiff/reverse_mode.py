"""Derivative of a graph's tail as ONNX nodes: reverse-mode differentiation at export time.

Each rule takes the gradient of the logit with respect to a node's output and adds the nodes for the gradient with
respect to its varying inputs. Quantization uses the straight-through estimator (Bengio et al., 2013), since rounding
has zero gradient.
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
from kdedge_export.onnx_graph.autodiff.class_token import find_class_token_row
from kdedge_export.onnx_graph.autodiff.context import CannotDifferentiate, OutputGradient, Rule, RuleContext, Values
from kdedge_export.onnx_graph.autodiff.elementwise import ELEMENTWISE
from kdedge_export.onnx_graph.autodiff.min_max import EXTREMES
from kdedge_export.onnx_graph.autodiff.normalization_ops import NORMS
from kdedge_export.onnx_graph.autodiff.reductions import REDUCTIONS
from kdedge_export.onnx_graph.autodiff.shape_ops import MOVES, put_back
from kdedge_export.onnx_graph.builder import NodeBuilder
from kdedge_export.onnx_graph.graph_index import Array, GraphIndex
from kdedge_export.onnx_graph.node_attributes import attributes
from kdedge_export.onnx_graph.pooling import pooled_axes

__all__ = ["gradients"]

_TWO_OPERANDS_SINCE = 11
"""First opset in which the bias of a Gemm is optional."""


def gradients(
    builder: NodeBuilder,
    view: GraphIndex,
    values: Values,
    logits: str,
    explained: str,
    one_hot: str,
    source: str,
    more_rules: Mapping[str, Rule] = MappingProxyType({}),
    *,
    all_whole: bool = False,
) -> dict[str, str]:
    """Add the nodes that compute the gradients of each image's explained logit.

    Args:
        builder: builder for the nodes.
        view: the graph.
        values: the tail's tensors in an example run.
        logits: the tensor `[N, K]` or `[N, K, 1, 1]`.
        explained: int64 `[N]`.
        one_hot: one-hot `explained`, in the shape and type of the logits.
        source: the first tensor to differentiate with respect to.
        more_rules: additional rules by operator.
        all_whole: also return gradients of tensors with a single row that affects the logits.

    Returns:
        Gradient tensors by tensor name, from the source to the logits, of the same shapes. Unless `all_whole`, tensors
            with a single row that affects the logits are omitted.

    Raises:
        CannotDifferentiate: a node of the tail has no rule.
    """
    rules = _RULES | dict(more_rules)
    path = [at for at in view.between(source, logits) if _has_slope(view.nodes[at], values)]
    for at in path:
        node = view.nodes[at]
        if node.op_type not in rules or node.domain not in ("", "ai.onnx"):
            raise CannotDifferentiate(node.op_type)
    seed = OutputGradient(one_hot, explained, len(values[logits]))
    grads = {logits: one_hot}
    wanted = frozenset({source}.union(*(view.nodes[at].output for at in path)))
    row = None if all_whole else find_class_token_row(builder, view, values, path)
    if row is not None:
        values = {**values, **row.values}
        wanted |= {part for part, whole in row.whole.items() if whole in wanted}
    for at in reversed(path):
        node = view.nodes[at] if row is None else row.nodes.get(at, view.nodes[at])
        own = {name: grads[name] for name in node.output if name in grads}
        if not own:  # used only by operators without a gradient
            continue
        step = RuleContext(builder, view, values, node, own, seed, wanted)
        for name, part in rules[node.op_type](step).items():
            if row is not None and (whole := row.leaves_at(name)):
                name, part = whole, put_back(step, part, whole, 1, np.array([row.number]))
            builder.sum_into(grads, name, part)
    if row is not None:
        builder.drop_unused(row.whole)
    return grads


def _has_slope(node: onnx.NodeProto, values: Values) -> bool:
    """Return True if a node outputs floats; conditions and indices are piecewise constant.

    Quantized values are too, but represent the original ones.
    """
    return node.op_type == "QuantizeLinear" or any(values[name].dtype.kind == "f" for name in node.output if name)


def _cast(step: RuleContext) -> dict[str, str]:
    return {step.node.input[0]: step.builder.cast(step.grad, step.values[step.node.input[0]].dtype)}


def _row_of(step: RuleContext, weight: str, *, classes_first: bool) -> str:
    """Gather the explained class's row of the classifier, equal to a product with a one-hot vector."""
    row = step.builder.add("Gather", weight, step.seed.explained, axis=0 if classes_first else 1)
    return row if classes_first else step.builder.add("Transpose", row, perm=[1, 0])


def _gemm(step: RuleContext) -> dict[str, str]:
    given = attributes(step.node)
    x, weight = step.node.input[:2]
    if given.get("transA", 0) or not step.view.is_weight(weight):
        raise CannotDifferentiate("Gemm of two activations")
    classes_first = bool(given.get("transB", 0))
    if step.grad == step.seed.tensor:
        back = _row_of(step, weight, classes_first=classes_first)
    else:
        # The third operand is optional since opset 11.
        nothing = [] if step.builder.opset >= _TWO_OPERANDS_SINCE else [step.number(0.0)]
        back = step.builder.add("Gemm", step.grad, weight, *nothing, transB=int(not classes_first))
    alpha = given.get("alpha", 1.0)
    return {x: back if alpha == 1.0 else step.times(back, step.number(alpha))}


def _matmul(step: RuleContext) -> dict[str, str]:
    x, weight = step.node.input
    if not step.view.is_weight(weight) or len(step.shape(weight)) != 2:
        return product(step)
    if step.grad == step.seed.tensor and len(step.shape(x)) == 2:
        return {x: _row_of(step, weight, classes_first=False)}
    return {x: step.builder.add("MatMul", step.grad, step.builder.add("Transpose", weight, perm=[1, 0]))}


def _conv(step: RuleContext) -> dict[str, str]:
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


def _spread(step: RuleContext, weight: str, kernel: tuple[int, ...], given: dict[str, Any]) -> str:
    """Add the transposed convolution of a gradient, to the size of the convolution's input."""
    sizes, outputs = (step.shape(name)[2:] for name in (step.node.input[0], step.node.output[0]))
    strides, dilations = (given.get(name, [1] * len(kernel)) for name in ("strides", "dilations"))
    pads = given.get("pads", [0] * 2 * len(kernel))
    reached = [
        (outputs[axis] - 1) * strides[axis] + (side - 1) * dilations[axis] + 1 - pads[axis] - pads[axis + len(kernel)]
        for axis, side in enumerate(kernel)
    ]
    # Remainder at the end, where no whole stride fits.
    unseen = [size - reach for size, reach in zip(sizes, reached, strict=True)]
    if any(not 0 <= left < stride for left, stride in zip(unseen, strides, strict=True)):
        raise CannotDifferentiate(f"{step.node.op_type} with a rounded-up output size")
    return step.builder.add("ConvTranspose", step.grad, weight, **given, output_padding=unseen)


def _mean(step: RuleContext) -> dict[str, str]:
    x = step.node.input[0]
    axes = pooled_axes(step.view, step.node, len(step.shape(x)), step.shape(step.node.output[0]))
    if axes is None and step.node.op_type == "AveragePool":
        return {x: _windows(step)}
    if axes is None:
        raise CannotDifferentiate(f"{step.node.op_type} over non-constant axes")
    if 0 in axes:
        raise CannotDifferentiate("mean over the batch")
    kept = [1 if axis in axes else size for axis, size in enumerate(step.shape(x))]
    spread = step.builder.reshape(step.grad, [-1, *kept[1:]])
    positions = step.builder.add("Div", step.builder.add("Size", x), step.builder.add("Size", step.node.output[0]))
    even = step.builder.add("Div", spread, step.builder.cast(positions, step.values[x].dtype))
    return {x: step.builder.add("Expand", even, step.builder.add("Shape", x))}


def _windows(step: RuleContext) -> str:
    """Differentiate windowed averaging as a depthwise convolution, normalized by the unpadded window size."""
    given = attributes(step.node)
    if given.get("ceil_mode", 0) or given.get("auto_pad", b"NOTSET") != b"NOTSET":
        raise CannotDifferentiate("AveragePool with ceil_mode or automatic padding")
    channels, kernel = step.shape(step.node.input[0])[1], tuple(given["kernel_shape"])
    kept: dict[str, Any] = {name: given[name] for name in ("kernel_shape", "strides", "pads") if name in given}
    dtype = step.values[step.node.output[0]].dtype
    counts_pads = bool(given.get("count_include_pad", 0)) or not any(given.get("pads", []))
    even = np.full((channels, 1, *kernel), 1 / math.prod(kernel) if counts_pads else 1, dtype=dtype)
    if not counts_pads:
        seen = step.builder.constant(_positions_seen(step, kernel, given).astype(dtype))
        step = replace(step, grads={step.node.output[0]: step.builder.add("Div", step.grad, seen)})
    return _spread(step, step.builder.constant(even), kernel, kept | {"group": channels})


def _positions_seen(step: RuleContext, kernel: tuple[int, ...], given: dict[str, Any]) -> Array:
    """Count the unpadded positions in each window."""
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
