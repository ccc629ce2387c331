"""What a rule of differentiation works with."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import onnx

from kdedge_export.onnx_graph.builder import Builder
from kdedge_export.onnx_graph.graph_index import Array, GraphView

__all__ = ["CannotDifferentiate", "Rule", "Seed", "Step", "Values"]

Values: TypeAlias = Mapping[str, Array]
"""Tensors by name, as they were in one example run: shapes and types are read from them."""


class CannotDifferentiate(Exception):
    """There is no rule for a node of the tail; the message names it."""


@dataclass(frozen=True)
class Seed:
    """The gradient at the logits: one for the explained class of each image, zero elsewhere."""

    tensor: str
    """One-hot, `[N, K]`."""
    explained: str
    """Its class, `[N]`."""
    images: int
    """N in the example run."""


@dataclass(frozen=True)
class Step:
    """What a rule works with."""

    builder: Builder
    view: GraphView
    values: Values
    node: onnx.NodeProto
    grads: Mapping[str, str]
    """Of the node's outputs; those that nothing on the way to the logits takes have none."""
    seed: Seed
    wanted: frozenset[str]
    """The tensors between the source and the logits: no other gradient is of use."""

    @property
    def grad(self) -> str:
        """Of the first output.

        Raises:
            CannotDifferentiate: only another output is used, such as a dropout's mask.
        """
        if self.node.output[0] not in self.grads:
            raise CannotDifferentiate(self.node.op_type)
        return self.grads[self.node.output[0]]

    def shape(self, tensor: str) -> tuple[int, ...]:
        """Of a tensor in the example run."""
        return tuple(self.values[tensor].shape)

    def number(self, value: float) -> str:
        """A scalar constant of the type that the node computes in."""
        return self.builder.number(value, self.values[self.node.output[0]].dtype)

    def times(self, *factors: str) -> str:
        """Their elementwise product."""
        product = factors[0]
        for factor in factors[1:]:
            product = self.builder.add("Mul", product, factor)
        return product

    def mask(self, *conditions: str) -> str:
        """The gradient where all conditions hold, else zero."""
        both = conditions[0]
        for condition in conditions[1:]:
            both = self.builder.add("And", both, condition)
        return self.builder.add("Where", both, self.grad, self.number(0.0))

    def folded(self, grad: str, of: str, shape: tuple[int, ...] | None = None) -> str:
        """A gradient summed over the axes along which a tensor was broadcast.

        Args:
            grad: of the shape of the node's output, or of `shape`.
            of: the tensor.
            shape: in the example run.
        """
        wide, narrow = shape or self.shape(self.node.output[0]), self.shape(of)
        extra = len(wide) - len(narrow)
        axes = [axis for axis in range(len(wide)) if axis < extra or (narrow[axis - extra] == 1 and wide[axis] != 1)]
        if not axes:
            return grad
        summed = self.builder.reduce("ReduceSum", grad, axes, keepdims=True)
        return self.builder.reshape_as(summed, of) if extra else summed


Rule: TypeAlias = Callable[[Step], dict[str, str]]
