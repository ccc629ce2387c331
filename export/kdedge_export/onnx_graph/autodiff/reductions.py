"""Derivatives of sums and norms over axes."""

from kdedge_export.onnx_graph.autodiff.context import CannotDifferentiate, Rule, RuleContext
from kdedge_export.onnx_graph.pooling import reduced_axes

__all__ = ["REDUCTIONS"]


def _sum(step: RuleContext) -> dict[str, str]:
    x = step.node.input[0]
    return {x: step.builder.add("Expand", _kept(step, step.grad), step.builder.add("Shape", x))}


def _length(step: RuleContext) -> dict[str, str]:
    """Differentiate the norm: `∂‖x‖/∂x = x / ‖x‖`; zero at x = 0, as in PyTorch."""
    x, add = step.node.input[0], step.builder.add
    length = _kept(step, step.node.output[0])
    unit = add("Where", add("Greater", length, step.number(0.0)), add("Div", x, length), step.number(0.0))
    return {x: step.times(_kept(step, step.grad), unit)}


def _kept(step: RuleContext, tensor: str) -> str:
    """Reshape a tensor of the result's shape to keep the reduced axes with size 1."""
    shape = step.shape(step.node.input[0])
    axes = reduced_axes(step.view, step.node, len(shape))
    if axes is None or 0 in axes:
        raise CannotDifferentiate(f"{step.node.op_type} over the batch or over non-constant axes")
    return step.builder.reshape(tensor, [-1, *(1 if axis in axes else shape[axis] for axis in range(1, len(shape)))])


REDUCTIONS: dict[str, Rule] = {"ReduceSum": _sum, "ReduceL2": _length}
