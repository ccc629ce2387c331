"""Derivatives of elementwise operators with several operands, which may be broadcast."""

from collections.abc import Callable, Sequence

from kdedge_export.onnx_graph.autodiff.context import CannotDifferentiate, Rule, RuleContext

__all__ = ["ARITHMETIC"]


def _operands(step: RuleContext, names: Sequence[str], *slopes: Callable[[], str]) -> dict[str, str]:
    """Compute the gradients of the wanted operands, each given as a callable."""
    parts: dict[str, str] = {}
    for name, slope in zip(names, slopes, strict=True):
        if name in step.wanted:
            step.builder.sum_into(parts, name, step.folded(slope(), name))
    return parts


def _add(step: RuleContext) -> dict[str, str]:
    return _operands(step, step.node.input, lambda: step.grad, lambda: step.grad)


def _sub(step: RuleContext) -> dict[str, str]:
    return _operands(step, step.node.input, lambda: step.grad, lambda: step.builder.add("Neg", step.grad))


def _mul(step: RuleContext) -> dict[str, str]:
    left, right = step.node.input
    return _operands(step, step.node.input, lambda: step.times(step.grad, right), lambda: step.times(step.grad, left))


def _div(step: RuleContext) -> dict[str, str]:
    right = step.node.input[1]

    def over() -> str:
        return step.builder.add("Div", step.grad, right)

    return _operands(
        step, step.node.input, over, lambda: step.builder.add("Neg", step.times(over(), step.node.output[0]))
    )


def _pow(step: RuleContext) -> dict[str, str]:
    x, power = step.node.input
    exponent = step.view.value(power)
    if exponent is None or exponent.size != 1:
        raise CannotDifferentiate("Pow with a varying exponent")
    degree = float(exponent.reshape(()))
    slope = x if degree == 2.0 else step.builder.add("Pow", x, step.number(degree - 1.0))
    return {x: step.times(step.grad, slope, step.number(degree))}


def _where(step: RuleContext) -> dict[str, str]:
    condition, *either = step.node.input
    zero = step.number(0.0)

    def left() -> str:
        return step.builder.add("Where", condition, step.grad, zero)

    def right() -> str:
        return step.builder.add("Where", condition, zero, step.grad)

    return _operands(step, either, left, right)


ARITHMETIC: dict[str, Rule] = {"Add": _add, "Sub": _sub, "Mul": _mul, "Div": _div, "Pow": _pow, "Where": _where}
