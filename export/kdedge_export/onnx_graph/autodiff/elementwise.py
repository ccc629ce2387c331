"""Derivatives of elementwise operators."""

import math
from collections.abc import Callable

from kdedge_export.onnx_graph.autodiff.context import CannotDifferentiate, Rule, RuleContext
from kdedge_export.onnx_graph.node_attributes import attributes

__all__ = ["ELEMENTWISE"]


def _elementwise(slope: Callable[[RuleContext, str, str], str]) -> Rule:
    """Return the rule for `slope(step, x, y)`, the elementwise derivative of y with respect to x."""

    def rule(step: RuleContext) -> dict[str, str]:
        x = step.node.input[0]
        return {x: step.times(step.grad, slope(step, x, step.node.output[0]))}

    return rule


def _relu(step: RuleContext) -> dict[str, str]:
    return {step.node.input[0]: step.mask(step.builder.add("Greater", step.node.input[0], step.number(0.0)))}


def _leaky_relu(step: RuleContext) -> dict[str, str]:
    alpha = attributes(step.node).get("alpha", 0.01)
    leaked = step.times(step.grad, step.number(alpha))
    positive = step.builder.add("Greater", step.node.input[0], step.number(0.0))
    return {step.node.input[0]: step.builder.add("Where", positive, step.grad, leaked)}


def _elu_slope(step: RuleContext, x: str, y: str) -> str:
    """Return the derivative of `x` for x > 0, else of `alpha · (exp(x) − 1)`, which is y + alpha; Selu is scaled."""
    given = attributes(step.node)
    alpha, gain = {"Elu": (1.0, 1.0), "Selu": (1.67326319217681884765625, 1.05070102214813232421875)}[step.node.op_type]
    alpha, gain = given.get("alpha", alpha), given.get("gamma", gain)
    positive = step.builder.add("Greater", x, step.number(0.0))
    below = step.builder.add("Add", y, step.number(alpha * gain))
    return step.builder.add("Where", positive, step.number(gain), below)


def _prelu(step: RuleContext) -> dict[str, str]:
    x, slope = step.node.input
    if slope in step.view.varying:
        raise CannotDifferentiate("PRelu with a varying slope")
    positive = step.builder.add("Greater", x, step.number(0.0))
    return {x: step.builder.add("Where", positive, step.grad, step.times(step.grad, slope))}


def _clip(step: RuleContext) -> dict[str, str]:
    x, given = step.node.input[0], attributes(step.node)
    bounds = dict(zip(("min", "max"), step.node.input[1:], strict=False))
    conditions = []
    for name, compare in (("min", "Greater"), ("max", "Less")):
        if bounds.get(name):
            conditions.append(step.builder.add(compare, x, bounds[name]))
        elif name in given:
            conditions.append(step.builder.add(compare, x, step.number(given[name])))
    return {x: step.mask(*conditions) if conditions else step.grad}


def _hard_sigmoid(step: RuleContext) -> dict[str, str]:
    y, alpha = step.node.output[0], attributes(step.node).get("alpha", 0.2)
    inside = (
        step.builder.add("Greater", y, step.number(0.0)),
        step.builder.add("Less", y, step.number(1.0)),
    )
    return {step.node.input[0]: step.times(step.mask(*inside), step.number(alpha))}


def _hard_swish_slope(step: RuleContext, x: str, _: str) -> str:
    add = step.builder.add
    middle = add("Div", add("Add", add("Add", x, x), step.number(3.0)), step.number(6.0))
    high = add("Where", add("Less", x, step.number(3.0)), middle, step.number(1.0))
    return add("Where", add("Greater", x, step.number(-3.0)), high, step.number(0.0))


def _sigmoid_slope(step: RuleContext, _: str, y: str) -> str:
    return step.times(y, step.builder.add("Sub", step.number(1.0), y))


def _swish_slope(step: RuleContext, x: str, _: str) -> str:
    add, alpha = step.builder.add, attributes(step.node).get("alpha", 1.0)
    scaled = step.times(x, step.number(alpha))
    gate = add("Sigmoid", scaled)
    return step.times(gate, add("Add", step.number(1.0), step.times(scaled, add("Sub", step.number(1.0), gate))))


def _tanh_slope(step: RuleContext, _: str, y: str) -> str:
    return step.builder.add("Sub", step.number(1.0), step.times(y, y))


def _gaussian(step: RuleContext, x: str, height: float, narrowness: float) -> str:
    """Return `height · exp(−narrowness · x²)`."""
    exponent = step.times(step.times(x, x), step.number(-narrowness))
    return step.times(step.builder.add("Exp", exponent), step.number(height))


def _erf_slope(step: RuleContext, x: str, _: str) -> str:
    return _gaussian(step, x, 2.0 / math.sqrt(math.pi), 1.0)


def _gelu_slope(step: RuleContext, x: str, _: str) -> str:
    add = step.builder.add
    if attributes(step.node).get("approximate", b"none") != b"none":
        return _gelu_by_tanh_slope(step, x)
    erf = add("Erf", step.times(x, step.number(math.sqrt(0.5))))
    below = step.times(add("Add", erf, step.number(1.0)), step.number(0.5))
    return add("Add", below, step.times(x, _gaussian(step, x, 1.0 / math.sqrt(2.0 * math.pi), 0.5)))


def _gelu_by_tanh_slope(step: RuleContext, x: str) -> str:
    """Differentiate `x · (1 + tanh u) / 2` with `u = √(2/π) · (x + 0.044715 x³)` (Hendrycks and Gimpel, 2016)."""
    add, squared = step.builder.add, step.times(x, x)
    rate, bend = math.sqrt(2.0 / math.pi), 0.044715
    inner = step.times(x, add("Add", step.times(squared, step.number(rate * bend)), step.number(rate)))
    tanh = add("Tanh", inner)
    below = step.times(add("Add", tanh, step.number(1.0)), step.number(0.5))
    steepness = add("Add", step.times(squared, step.number(1.5 * rate * bend)), step.number(0.5 * rate))
    rise = step.times(add("Sub", step.number(1.0), step.times(tanh, tanh)), steepness)
    return add("Add", below, step.times(x, rise))


def _reciprocal_slope(step: RuleContext, _: str, y: str) -> str:
    return step.builder.add("Neg", step.times(y, y))


def _softsign_slope(step: RuleContext, x: str, _: str) -> str:
    reach = step.builder.add("Add", step.builder.add("Abs", x), step.number(1.0))
    return step.builder.add("Reciprocal", step.times(reach, reach))


ELEMENTWISE: dict[str, Rule] = {
    "Neg": _elementwise(lambda step, _x, _y: step.number(-1.0)),
    "Sqrt": _elementwise(lambda step, _, y: step.builder.add("Div", step.number(0.5), y)),
    "Exp": _elementwise(lambda _step, _x, y: y),
    "Log": _elementwise(lambda step, x, _: step.builder.add("Reciprocal", x)),
    "Abs": _elementwise(lambda step, x, _: step.builder.add("Sign", x)),
    "Reciprocal": _elementwise(_reciprocal_slope),
    "Erf": _elementwise(_erf_slope),
    "Softsign": _elementwise(_softsign_slope),
    "Softplus": _elementwise(lambda step, x, _: step.builder.add("Sigmoid", x)),
    "Relu": _relu,
    "LeakyRelu": _leaky_relu,
    "PRelu": _prelu,
    **dict.fromkeys(("Elu", "Selu"), _elementwise(_elu_slope)),
    "Clip": _clip,
    "Sigmoid": _elementwise(_sigmoid_slope),
    "Tanh": _elementwise(_tanh_slope),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _elementwise(_hard_swish_slope),
    "Swish": _elementwise(_swish_slope),
    "Gelu": _elementwise(_gelu_slope),
}
