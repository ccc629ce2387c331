"""Derivatives of shape operators: reshape, transpose, slice, gather, concat, split."""

import numpy as np
from numpy.typing import NDArray

from kdedge_export.onnx_graph.autodiff.context import CannotDifferentiate, Rule, RuleContext
from kdedge_export.onnx_graph.graph_index import Array
from kdedge_export.onnx_graph.node_attributes import attributes

__all__ = ["MOVES", "put_back"]

_SUMS_SINCE = 16
"""First opset in which ScatterND can add."""


def _through(step: RuleContext) -> dict[str, str]:
    return {step.node.input[0]: step.grad}


def _reshaped(step: RuleContext) -> dict[str, str]:
    return {step.node.input[0]: step.builder.reshape_as(step.grad, step.node.input[0])}


def _transpose(step: RuleContext) -> dict[str, str]:
    rank = len(step.shape(step.node.input[0]))
    order = list(attributes(step.node).get("perm", range(rank)[::-1]))
    back = [order.index(axis) for axis in range(rank)]
    return {step.node.input[0]: step.builder.add("Transpose", step.grad, perm=back)}


def _concat(step: RuleContext) -> dict[str, str]:
    parts: dict[str, str] = {}
    axis = attributes(step.node)["axis"] % len(step.shape(step.node.output[0]))
    start = 0
    for name in step.node.input:
        end = start + step.shape(name)[axis]
        if name in step.wanted:
            step.builder.sum_into(parts, name, step.builder.slice(step.grad, [start], [end], [axis]))
        start = end
    return parts


def _pad(step: RuleContext) -> dict[str, str]:
    x = step.node.input[0]
    given, rank = attributes(step.node), len(step.shape(x))
    pads = step.values[step.node.input[1]].tolist() if len(step.node.input) > 1 else list(given.get("pads", []))
    if given.get("mode", b"constant") != b"constant" or len(pads) != 2 * rank or len(step.node.input) > 3:
        raise CannotDifferentiate("Pad with a mode other than constant")
    starts = pads[:rank]
    ends = [start + size for start, size in zip(starts, step.shape(x), strict=True)]
    ends[0] = np.iinfo(np.int64).max  # the batch axis
    return {x: step.builder.slice(step.grad, starts, ends, range(rank))}


def _slice(step: RuleContext) -> dict[str, str]:
    x, shape, back = step.node.input[0], step.shape(step.node.input[0]), step.grad
    for axis, taken in _taken(step, len(shape)).items():
        back = put_back(step, back, x, axis, np.arange(shape[axis])[taken])
    return {x: back}


def _gather(step: RuleContext) -> dict[str, str]:
    x, indices = step.node.input
    places, shape = step.view.value(indices), step.shape(x)
    axis = attributes(step.node).get("axis", 0) % len(shape)
    if indices not in step.view.varying and len(shape) == 1 and _in_order(step.values[indices], shape[0]):
        return {x: step.builder.reshape_as(step.grad, x)}  # PyTorch's `as_strided` of a tensor already in order
    if places is None or places.ndim > 1:
        raise CannotDifferentiate("Gather at varying positions")
    taken = places.reshape(-1) % shape[axis]
    if len(set(taken.tolist())) < len(taken):
        if axis == 0:
            raise CannotDifferentiate("Gather with repeated values on the first axis")
        first = [axis, *(other for other in range(len(shape)) if other != axis)]
        nothing, back = (step.builder.add("Transpose", item, perm=first) for item in (_zeros_like(step, x), step.grad))
        summed = _summed(step, nothing, taken[:, None], back)
        return {x: step.builder.add("Transpose", summed, perm=[first.index(place) for place in range(len(shape))])}
    grad = step.grad if places.ndim else step.builder.unsqueeze(step.grad, axis)
    return {x: put_back(step, grad, x, axis, taken)}


def _gather_nd(step: RuleContext) -> dict[str, str]:
    x, indices = step.node.input
    places = step.view.value(indices)
    if places is None or attributes(step.node).get("batch_dims", 0):
        raise CannotDifferentiate("GatherND at varying positions")
    return {x: _summed(step, _zeros_like(step, x), places, step.grad)}


def _zeros_like(step: RuleContext, like: str) -> str:
    return step.times(like, step.number(0.0))


def _summed(step: RuleContext, nothing: str, positions: Array, grad: str) -> str:
    """Add gradients at positions of the first axes, `[..., axes]`, which may repeat, to zeros."""
    if step.builder.opset < _SUMS_SINCE:
        raise CannotDifferentiate(f"{step.node.op_type} with repeated values before opset {_SUMS_SINCE}")
    at = step.builder.constant(positions.astype(np.int64))
    return step.builder.add("ScatterND", nothing, at, grad, reduction="add")


def _in_order(places: Array, count: int) -> bool:
    return np.array_equal(places.reshape(-1), np.arange(count))


def put_back(step: RuleContext, grad: str, x: str, axis: int, taken: NDArray[np.int64]) -> str:
    """Scatter a gradient to the positions `inputs_of` of an axis, each unique; zero elsewhere."""
    shape = step.shape(x)
    if np.array_equal(taken, np.arange(shape[axis])):
        return grad
    if (
        axis == 0 and shape[0] == step.seed.images and step.seed.images not in shape[1:]
    ):  # keys and values are two as well
        raise CannotDifferentiate(f"{step.node.op_type} of the batch")
    source, is_taken = np.zeros(shape[axis], np.int64), np.zeros(shape[axis], step.values[x].dtype)
    source[taken], is_taken[taken] = np.arange(len(taken)), 1
    gathered = step.builder.add("Gather", grad, step.builder.constant(source), axis=axis)
    column = is_taken.reshape([-1] + [1] * (len(shape) - 1 - axis))
    return step.times(gathered, step.builder.constant(column))


def _split(step: RuleContext) -> dict[str, str]:
    x, given = step.node.input[0], attributes(step.node)
    parts = [
        step.grads.get(name) or _zeros_like(step, name)  # a part that does not lead to the logits
        for name in step.node.output
    ]
    return {x: step.builder.add("Concat", *parts, axis=given.get("axis", 0))}


def _expand(step: RuleContext) -> dict[str, str]:
    return {step.node.input[0]: step.folded(step.grad, step.node.input[0])}


def _taken(step: RuleContext, rank: int) -> dict[int, slice]:
    """Return the slices of a Slice by axis: attributes before opset 10, inputs since."""
    given = attributes(step.node)
    names = ("starts", "ends", "axes", "steps")
    for name, tensor in zip(names, step.node.input[1:], strict=False):
        if tensor and tensor in step.view.varying:
            raise CannotDifferentiate("Slice at varying positions")
        value = step.values[tensor] if tensor else None
        if value is not None:
            given[name] = value.tolist()
    axes = [axis % rank for axis in given.get("axes", range(len(given["starts"])))]
    steps = given.get("steps", [1] * len(axes))
    if any(stride < 1 for stride in steps):
        raise CannotDifferentiate("Slice with a negative step")
    return {axis: slice(*bounds) for axis, *bounds in zip(axes, given["starts"], given["ends"], steps, strict=True)}


MOVES: dict[str, Rule] = {
    **dict.fromkeys(("Identity", "Dropout", "QuantizeLinear", "DequantizeLinear"), _through),
    **dict.fromkeys(("Flatten", "Reshape", "Squeeze", "Unsqueeze"), _reshaped),
    "Transpose": _transpose,
    "Concat": _concat,
    "Pad": _pad,
    "Slice": _slice,
    "Gather": _gather,
    "GatherND": _gather_nd,
    "Split": _split,
    "Expand": _expand,
}
