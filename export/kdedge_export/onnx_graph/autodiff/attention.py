"""Derivatives of attention: softmax, and products of two activations in any notation."""

import math

from kdedge_export.onnx_graph.autodiff.context import CannotDifferentiate, Rule, RuleContext
from kdedge_export.onnx_graph.node_attributes import attributes

__all__ = ["ATTENTION", "product"]

_ONE_AXIS_SINCE = 13
"""First opset in which a softmax uses one axis, the last by default; before, it uses all axes from the given one."""


def product(step: RuleContext) -> dict[str, str]:
    """Differentiate a batched MatMul with one or two varying operands: `∂/∂A = G Bᵀ` and `∂/∂B = Aᵀ G`."""
    left, right = step.node.input
    if min(len(step.shape(left)), len(step.shape(right))) < 2:
        raise CannotDifferentiate("MatMul of a vector")
    parts: dict[str, str] = {}
    for operand in dict.fromkeys((left, right)):
        if operand not in step.wanted:
            continue
        ways = []
        if operand == left:
            ways.append(step.builder.add("MatMul", step.grad, _transpose_last(step, right)))
        if operand == right:
            ways.append(step.builder.add("MatMul", _transpose_last(step, left), step.grad))
        whole = ways[0] if len(ways) == 1 else step.builder.add("Add", *ways)
        stacked = step.shape(step.node.output[0])[:-2] + step.shape(operand)[-2:]
        parts[operand] = step.folded(whole, operand, stacked)
    return parts


def _transpose_last(step: RuleContext, tensor: str) -> str:
    axes = list(range(len(step.shape(tensor))))
    return step.builder.add("Transpose", tensor, perm=[*axes[:-2], axes[-1], axes[-2]])


def _softmax(step: RuleContext) -> dict[str, str]:
    x, y = step.node.input[0], step.node.output[0]
    rank, is_one_axis = len(step.shape(x)), step.builder.opset >= _ONE_AXIS_SINCE
    axis = attributes(step.node).get("axis", -1 if is_one_axis else 1) % rank
    if axis != rank - 1 and not is_one_axis:
        raise CannotDifferentiate("Softmax over several axes")
    weighted = step.times(step.grad, y)
    total = step.builder.reduce("ReduceSum", weighted, [axis], keepdims=True)
    return {x: step.builder.add("Sub", weighted, step.times(y, total))}


def _einsum(step: RuleContext) -> dict[str, str]:
    """Differentiate an einsum of two operands by exchanging the result with one operand."""
    equation = attributes(step.node)["equation"].decode().replace(" ", "")
    given, arrow, result = equation.partition("->")
    terms = given.split(",")
    if not arrow or "." in equation or len(terms) != 2 or any(len(set(term)) < len(term) for term in terms):
        raise CannotDifferentiate("Einsum of this form")
    parts: dict[str, str] = {}
    for at, (operand, term) in enumerate(zip(step.node.input, terms, strict=True)):
        if operand not in step.wanted:
            continue
        other = terms[1 - at]
        if not set(term) <= set(result) | set(other):
            raise CannotDifferentiate("Einsum that sums one operand alone")
        turned = f"{result},{other}->{term}"
        part = step.builder.add("Einsum", step.grad, step.node.input[1 - at], equation=turned)
        step.builder.sum_into(parts, operand, part)
    return parts


def _attention(step: RuleContext) -> dict[str, str]:
    """Differentiate the operator `softmax(scale · Q Kᵀ + mask) V` with separate heads, recomputing its softmax."""
    given, add = attributes(step.node), step.builder.add
    names = [name for name in step.node.input if name]
    query, key, value = names[:3]
    heads = {step.shape(name)[1] for name in names[:3]}
    if len(step.shape(query)) != 4 or len(heads) > 1 or len(names) > 4 or len(step.node.output) > 1:
        raise CannotDifferentiate("Attention with merged or shared heads, or with a cache")
    if given.get("is_causal", 0) or given.get("softcap", 0.0):
        raise CannotDifferentiate("Attention with a causal mask or capped scores")
    scale = step.number(given.get("scale", step.shape(query)[-1] ** -0.5))

    def turned(tensor: str) -> str:
        return add("Transpose", tensor, perm=[0, 1, 3, 2])

    scores = step.times(add("MatMul", query, turned(key)), scale)
    if names[3:]:
        is_kept = step.values[names[3]].dtype == bool
        hidden = step.number(-math.inf)
        scores = add("Where", names[3], scores, hidden) if is_kept else add("Add", scores, names[3])
    weights = add("Softmax", scores, axis=-1)
    weighted = step.times(weights, add("MatMul", step.grad, turned(value)))
    total = step.builder.reduce("ReduceSum", weighted, [3], keepdims=True)
    slope = step.times(add("Sub", weighted, step.times(weights, total)), scale)
    parts: dict[str, str] = {}
    for name, left, right in ((query, slope, key), (key, turned(slope), query), (value, turned(weights), step.grad)):
        if name in step.wanted:
            step.builder.sum_into(parts, name, add("MatMul", left, right))
    return parts


ATTENTION: dict[str, Rule] = {"Softmax": _softmax, "Einsum": _einsum, "Attention": _attention}
