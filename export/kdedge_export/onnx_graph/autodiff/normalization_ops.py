"""Derivatives of normalization operators."""

import math

from kdedge_export.onnx_graph.autodiff.context import CannotDifferentiate, Rule, RuleContext
from kdedge_export.onnx_graph.node_attributes import attributes

__all__ = ["NORMS"]


def _batch_norm(step: RuleContext) -> dict[str, str]:
    x, scale, _, _, variance = step.node.input
    deviation = step.builder.add("Sqrt", step.builder.add("Add", variance, _epsilon(step)))
    factor = step.builder.add("Div", scale, deviation)
    return {x: step.times(step.grad, step.builder.reshape(factor, [1, -1] + [1] * (len(step.shape(x)) - 2)))}


def _layer_norm(step: RuleContext) -> dict[str, str]:
    x, scale = step.node.input[:2]
    _require_last_axis(step)
    return {x: _standardized(step, x, step.times(step.grad, scale), [-1])}


def _instance_norm(step: RuleContext) -> dict[str, str]:
    x, scale = step.node.input[:2]
    positions = list(range(2, len(step.shape(x))))
    return {
        x: _standardized(
            step, x, step.times(step.grad, step.builder.reshape(scale, [1, -1, *[1] * len(positions)])), positions
        )
    }


def _group_norm(step: RuleContext) -> dict[str, str]:
    """Differentiate group normalization; the gain is per channel since opset 21, per group before."""
    x, scale = step.node.input[:2]
    shape, groups = step.shape(x), attributes(step.node)["num_groups"]
    if step.shape(scale) != shape[1:2]:
        raise CannotDifferentiate("GroupNormalization with a gain per group")
    gained = step.times(step.grad, step.builder.reshape(scale, [1, -1, *[1] * (len(shape) - 2)]))
    parted = [-1, groups, math.prod(shape[1:]) // groups]
    back = _standardized(step, step.builder.reshape(x, parted), step.builder.reshape(gained, parted), [2])
    return {x: step.builder.reshape_as(back, x)}


def _rms_norm(step: RuleContext) -> dict[str, str]:
    x, scale = step.node.input[:2]
    _require_last_axis(step)
    add, grad = step.builder.add, step.times(step.grad, scale)
    length = add("Sqrt", add("Add", _mean_of(step, step.times(x, x), [-1]), _epsilon(step)))
    unit = add("Div", x, length)
    return {x: add("Div", add("Sub", grad, step.times(unit, _mean_of(step, step.times(unit, grad), [-1]))), length)}


def _standardized(step: RuleContext, x: str, grad: str, axes: list[int]) -> str:
    """Differentiate subtracting the mean and dividing by the standard deviation over axes."""
    add = step.builder.add
    centered = add("Sub", x, _mean_of(step, x, axes))
    deviation = add("Sqrt", add("Add", _mean_of(step, step.times(centered, centered), axes), _epsilon(step)))
    unit = add("Div", centered, deviation)
    inner = add("Sub", grad, _mean_of(step, grad, axes))
    return add("Div", add("Sub", inner, step.times(unit, _mean_of(step, step.times(unit, grad), axes))), deviation)


def _require_last_axis(step: RuleContext) -> None:
    if attributes(step.node).get("axis", -1) not in (-1, len(step.shape(step.node.input[0])) - 1):
        raise CannotDifferentiate(f"{step.node.op_type} over several axes")


def _mean_of(step: RuleContext, value: str, axes: list[int]) -> str:
    return step.builder.reduce("ReduceMean", value, axes, keepdims=True)


def _epsilon(step: RuleContext) -> str:
    return step.number(attributes(step.node).get("epsilon", 1e-5))


NORMS: dict[str, Rule] = {
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm,
    "InstanceNormalization": _instance_norm,
    "GroupNormalization": _group_norm,
    "RMSNormalization": _rms_norm,
}
