"""The derivative of a graph's tail, written as ONNX nodes: reverse differentiation at export time.

Each rule takes the gradient of the logit with respect to a node's output and adds the nodes that give it with
respect to the inputs that vary. Quantizing is differentiated straight through (Bengio et al., 2013): rounding has
no slope of its own.
"""

from collections.abc import Callable

from kdedge_export.surgery.builder import Builder
from kdedge_export.surgery.pooling import pooled_axes
from kdedge_export.surgery.slopes import ELEMENTWISE
from kdedge_export.surgery.step import CannotDifferentiate, Rule, Seed, Step, Values
from kdedge_export.surgery.view import GraphView, attributes

__all__ = ["gradient"]


def gradient(
    builder: Builder, view: GraphView, values: Values, logits: str, explained: str, one_hot: str, source: str
) -> str:
    """Add the nodes that give the derivative of each image's explained logit with respect to a tensor.

    Args:
        builder: takes the nodes.
        view: the graph.
        values: the tail's tensors in an example run.
        logits: the tensor `[N, K]` or `[N, K, 1, 1]`.
        explained: int64 `[N]`.
        one_hot: of `explained`, in the shape and type of the logits.
        source: the tensor to differentiate with respect to.

    Returns:
        The name of the gradient, of the source's shape.

    Raises:
        CannotDifferentiate: a node of the tail has no rule.
    """
    path = view.between(source, logits)
    for at in path:
        node = view.nodes[at]
        if node.op_type not in _RULES or node.domain not in ("", "ai.onnx"):
            raise CannotDifferentiate(node.op_type)
    seed = Seed(one_hot, explained)
    grads = {logits: one_hot}
    wanted = frozenset({source}.union(*(view.nodes[at].output for at in path)))
    for at in reversed(path):
        node = view.nodes[at]
        if node.output[0] not in grads:  # only a second output, such as a dropout's mask, is used
            raise CannotDifferentiate(node.op_type)
        step = Step(builder, view, values, node, grads[node.output[0]], seed, wanted)
        for name, part in _RULES[node.op_type](step).items():
            grads[name] = builder.add("Add", grads[name], part) if name in grads else part
    return grads[source]


def _through(step: Step) -> dict[str, str]:
    return {step.node.input[0]: step.grad}


def _cast(step: Step) -> dict[str, str]:
    return {step.node.input[0]: step.builder.cast(step.grad, step.values[step.node.input[0]].dtype)}


def _reshaped(step: Step) -> dict[str, str]:
    return {step.node.input[0]: step.builder.reshape_as(step.grad, step.node.input[0])}


def _transpose(step: Step) -> dict[str, str]:
    rank = len(step.shape(step.node.input[0]))
    order = list(attributes(step.node).get("perm", range(rank)[::-1]))
    back = [order.index(axis) for axis in range(rank)]
    return {step.node.input[0]: step.builder.add("Transpose", step.grad, perm=back)}


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
        back = step.builder.add("Gemm", step.grad, weight, transB=int(not classes_first))
    alpha = given.get("alpha", 1.0)
    return {x: back if alpha == 1.0 else step.times(back, step.number(alpha))}


def _matmul(step: Step) -> dict[str, str]:
    x, weight = step.node.input
    if not step.view.is_weight(weight) or len(step.shape(weight)) != 2:
        raise CannotDifferentiate("MatMul of two activations")
    if step.grad == step.seed.tensor and len(step.shape(x)) == 2:
        return {x: _row_of(step, weight, classes_first=False)}
    return {x: step.builder.add("MatMul", step.grad, step.builder.add("Transpose", weight, perm=[1, 0]))}


def _conv(step: Step) -> dict[str, str]:
    given = attributes(step.node)
    weight = step.node.input[1]
    if any(stride != 1 for stride in given.get("strides", [])) or given.get("auto_pad", b"NOTSET") != b"NOTSET":
        raise CannotDifferentiate("strided Conv")
    if not step.view.is_weight(weight):
        raise CannotDifferentiate("Conv of two activations")
    kept = {name: given[name] for name in ("dilations", "group", "kernel_shape", "pads") if name in given}
    return {step.node.input[0]: step.builder.add("ConvTranspose", step.grad, weight, **kept)}


def _batch_norm(step: Step) -> dict[str, str]:
    x, scale, _, _, variance = step.node.input
    epsilon = step.number(attributes(step.node).get("epsilon", 1e-5))
    deviation = step.builder.add("Sqrt", step.builder.add("Add", variance, epsilon))
    factor = step.builder.add("Div", scale, deviation)
    return {x: step.times(step.grad, step.builder.reshape(factor, [1, -1] + [1] * (len(step.shape(x)) - 2)))}


def _layer_norm(step: Step) -> dict[str, str]:
    given = attributes(step.node)
    x, scale = step.node.input[:2]
    if given.get("axis", -1) not in (-1, len(step.shape(x)) - 1):
        raise CannotDifferentiate("LayerNormalization over several axes")
    add = step.builder.add

    def mean(value: str) -> str:
        return step.builder.reduce("ReduceMean", value, [-1], keepdims=True)

    centred = add("Sub", x, mean(x))
    deviation = add("Sqrt", add("Add", mean(step.times(centred, centred)), step.number(given.get("epsilon", 1e-5))))
    unit, scaled = add("Div", centred, deviation), step.times(step.grad, scale)
    inner = add("Sub", add("Sub", scaled, mean(scaled)), step.times(unit, mean(step.times(unit, scaled))))
    return {x: add("Div", inner, deviation)}


def _mean(step: Step) -> dict[str, str]:
    x = step.node.input[0]
    axes = pooled_axes(step.view, step.node, len(step.shape(x)), step.shape(step.node.output[0]))
    if axes is None:
        raise CannotDifferentiate(f"{step.node.op_type} of windows")
    if 0 in axes:
        raise CannotDifferentiate("mean over the batch")
    kept = [1 if axis in axes else size for axis, size in enumerate(step.shape(x))]
    spread = step.builder.reshape(step.grad, [-1, *kept[1:]])
    cells = step.builder.add("Div", step.builder.add("Size", x), step.builder.add("Size", step.node.output[0]))
    even = step.builder.add("Div", spread, step.builder.cast(cells, step.values[x].dtype))
    return {x: step.builder.add("Expand", even, step.builder.add("Shape", x))}


def _operands(step: Step, *slopes: Callable[[], str]) -> dict[str, str]:
    """The gradients of a node's two operands, each given as a call so that only those that are wanted are written."""
    parts: dict[str, str] = {}
    for name, slope in zip(step.node.input, slopes, strict=True):
        if name in step.wanted:
            part = step.folded(slope(), name)
            parts[name] = step.builder.add("Add", parts[name], part) if name in parts else part
    return parts


def _add(step: Step) -> dict[str, str]:
    return _operands(step, lambda: step.grad, lambda: step.grad)


def _sub(step: Step) -> dict[str, str]:
    return _operands(step, lambda: step.grad, lambda: step.builder.add("Neg", step.grad))


def _mul(step: Step) -> dict[str, str]:
    left, right = step.node.input
    return _operands(step, lambda: step.times(step.grad, right), lambda: step.times(step.grad, left))


def _div(step: Step) -> dict[str, str]:
    right = step.node.input[1]

    def over() -> str:
        return step.builder.add("Div", step.grad, right)

    return _operands(step, over, lambda: step.builder.add("Neg", step.times(over(), step.node.output[0])))


def _pow(step: Step) -> dict[str, str]:
    x, power = step.node.input
    exponent = step.view.value(power)
    if exponent is None or exponent.size != 1:
        raise CannotDifferentiate("Pow with a varying exponent")
    degree = float(exponent.reshape(()))
    slope = x if degree == 2.0 else step.builder.add("Pow", x, step.number(degree - 1.0))
    return {x: step.times(step.grad, slope, step.number(degree))}


_RULES: dict[str, Rule] = {
    **dict.fromkeys(("Identity", "Dropout", "QuantizeLinear", "DequantizeLinear"), _through),
    **dict.fromkeys(("Flatten", "Reshape", "Squeeze", "Unsqueeze"), _reshaped),
    **dict.fromkeys(("GlobalAveragePool", "AveragePool", "ReduceMean"), _mean),
    "Cast": _cast,
    "Transpose": _transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Conv": _conv,
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm,
    "Add": _add,
    "Sub": _sub,
    "Mul": _mul,
    "Div": _div,
    "Pow": _pow,
    **ELEMENTWISE,
}
