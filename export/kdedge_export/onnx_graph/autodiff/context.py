"""Context of a differentiation rule."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import onnx

from kdedge_export.onnx_graph.builder import NodeBuilder
from kdedge_export.onnx_graph.graph_index import Array, GraphIndex

__all__ = ["CannotDifferentiate", "Rule", "OutputGradient", "RuleContext", "Values"]

Values: TypeAlias = Mapping[str, Array]
"""Tensors by name from one example run; their shapes and types are used."""


class CannotDifferentiate(Exception):
    """Raised if a node of the tail has no rule; the message names it."""


@dataclass(frozen=True)
class OutputGradient:
    """Gradient at the logits: one for the explained class of each image, zero elsewhere."""

    tensor: str
    """One-hot tensor `[N, K]`."""
    explained: str
    """Explained class tensor `[N]`."""
    images: int
    """Batch size N of the example run."""


@dataclass(frozen=True)
class RuleContext:
    """Context of a differentiation rule."""

    builder: NodeBuilder
    view: GraphIndex
    values: Values
    node: onnx.NodeProto
    grads: Mapping[str, str]
    """Gradients of the node's outputs; outputs that do not lead to the logits have none."""
    seed: OutputGradient
    wanted: frozenset[str]
    """Tensors between the source and the logits, whose gradients are needed."""

    @property
    def grad(self) -> str:
        """Gradient of the first output.

        Raises:
            CannotDifferentiate: only another output is used, such as a dropout mask.
        """
        if self.node.output[0] not in self.grads:
            raise CannotDifferentiate(self.node.op_type)
        return self.grads[self.node.output[0]]

    def shape(self, tensor: str) -> tuple[int, ...]:
        """Return the shape of a tensor in the example run."""
        return tuple(self.values[tensor].shape)

    def number(self, value: float) -> str:
        """Add a scalar constant of the node's type."""
        return self.builder.number(value, self.values[self.node.output[0]].dtype)

    def times(self, *factors: str) -> str:
        """Multiply tensors elementwise."""
        product = factors[0]
        for factor in factors[1:]:
            product = self.builder.add("Mul", product, factor)
        return product

    def mask(self, *conditions: str) -> str:
        """Return the gradient where all conditions hold, else zero."""
        both = conditions[0]
        for condition in conditions[1:]:
            both = self.builder.add("And", both, condition)
        return self.builder.add("Where", both, self.grad, self.number(0.0))

    def folded(self, grad: str, of: str, shape: tuple[int, ...] | None = None) -> str:
        """Sum a gradient over the axes along which a tensor was broadcast.

        Args:
            grad: gradient of the shape of the node's output, or of `shape`.
            of: the tensor.
            shape: shape in the example run.
        """
        wide, narrow = shape or self.shape(self.node.output[0]), self.shape(of)
        extra = len(wide) - len(narrow)
        axes = [axis for axis in range(len(wide)) if axis < extra or (narrow[axis - extra] == 1 and wide[axis] != 1)]
        if not axes:
            return grad
        summed = self.builder.reduce("ReduceSum", grad, axes, keepdims=True)
        return self.builder.reshape_as(summed, of) if extra else summed


Rule: TypeAlias = Callable[[RuleContext], dict[str, str]]
