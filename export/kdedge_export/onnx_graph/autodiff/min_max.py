"""Derivatives of maxima and minima; ties share the gradient evenly."""

from functools import reduce

from kdedge_export.onnx_graph.autodiff.context import CannotDifferentiate, Rule, RuleContext
from kdedge_export.onnx_graph.node_attributes import attributes
from kdedge_export.onnx_graph.pooling import reduced_axes

__all__ = ["EXTREMES"]


def _of_operands(step: RuleContext) -> dict[str, str]:
    """Differentiate elementwise `Max` and `Min`."""
    add, result = step.builder.add, step.node.output[0]
    reached = [_reaches(step, name, result) for name in step.node.input]
    count = reduce(lambda one, two: add("Add", one, two), (_as_number(step, mask) for mask in reached))
    shared, parts = add("Div", step.grad, count), dict[str, str]()
    for name, mask in zip(step.node.input, reached, strict=True):
        if name in step.wanted:
            step.builder.sum_into(parts, name, step.folded(add("Where", mask, shared, step.number(0.0)), name))
    return parts


def _of_axes(step: RuleContext) -> dict[str, str]:
    """Differentiate `ReduceMax`, `ReduceMin` and max-pooling over the whole map."""
    x, shape = step.node.input[0], step.shape(step.node.input[0])
    axes = _axes(step, len(shape))
    kept = [-1, *(1 if axis in axes else shape[axis] for axis in range(1, len(shape)))]
    result, grad = (step.builder.reshape(tensor, kept) for tensor in (step.node.output[0], step.grad))
    mask = _reaches(step, x, result)
    count = step.builder.reduce("ReduceSum", _as_number(step, mask), axes, keepdims=True)
    return {x: step.builder.add("Where", mask, step.builder.add("Div", grad, count), step.number(0.0))}


def _axes(step: RuleContext, rank: int) -> tuple[int, ...]:
    kind, given = step.node.op_type, attributes(step.node)
    if kind == "MaxPool":
        is_whole = all(size == 1 for size in step.shape(step.node.output[0])[2:]) and not any(given.get("pads", []))
        if not is_whole or tuple(given["kernel_shape"]) != step.shape(step.node.input[0])[2:]:
            raise CannotDifferentiate("MaxPool over windows")
    if kind.endswith("MaxPool"):
        return tuple(range(2, rank))
    axes = reduced_axes(step.view, step.node, rank)
    if axes is None or 0 in axes:
        raise CannotDifferentiate(f"{kind} over the batch or over non-constant axes")
    return axes


def _reaches(step: RuleContext, tensor: str, extreme: str) -> str:
    """Return a mask of the positions at the extreme, using comparisons available for floats before opset 11."""
    short = "Greater" if step.node.op_type.endswith("Min") else "Less"
    return step.builder.add("Not", step.builder.add(short, tensor, extreme))


def _as_number(step: RuleContext, mask: str) -> str:
    return step.builder.cast(mask, step.values[step.node.input[0]].dtype)


EXTREMES: dict[str, Rule] = {
    **dict.fromkeys(("Max", "Min"), _of_operands),
    **dict.fromkeys(("ReduceMax", "ReduceMin", "GlobalMaxPool", "MaxPool"), _of_axes),
}
