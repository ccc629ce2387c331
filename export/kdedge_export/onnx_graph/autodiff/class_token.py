"""Row-sparse differentiation for tails that use a single token, such as a class token.

After the last attention, norms and dense layers process each token separately, and the logits use one row of the
result. The gradient of all other rows is zero, so it is computed for that row alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper

from kdedge_export.onnx_graph.autodiff.context import Values
from kdedge_export.onnx_graph.builder import NodeBuilder
from kdedge_export.onnx_graph.graph_index import Array, GraphIndex
from kdedge_export.onnx_graph.node_attributes import attributes
from kdedge_export.onnx_graph.pooling import reduced_axes

__all__ = ["ClassTokenRow", "find_class_token_row"]

_ALONE = {
    *("Add", "Sub", "Mul", "Div", "Pow", "Sqrt", "Exp", "Erf", "Neg", "Identity", "Dropout", "Relu", "Gelu", "Tanh"),
    *("Sigmoid", "Swish", "HardSwish", "Clip"),
}
"""Operators that work on each value."""


@dataclass(frozen=True)
class ClassTokenRow:
    """Selected token row, and the nodes that process it."""

    number: int
    nodes: dict[int, onnx.NodeProto]
    """Nodes by index, rewritten to tensors with only the row."""
    whole: dict[str, str]
    """Original tensor of each row tensor `[N, 1, C]`."""
    values: dict[str, Array]
    """Values of the row tensors in the example run."""

    def leaves_at(self, tensor: str) -> str | None:
        """Return the original tensor of a row not produced by these nodes, where the gradient leaves the row."""
        made = {item for node in self.nodes.values() for item in node.output}
        return None if tensor in made else self.whole.get(tensor)


def find_class_token_row(
    builder: NodeBuilder, view: GraphIndex, values: Values, path: Sequence[int]
) -> ClassTokenRow | None:
    """Find the last tokens with a single used row, up to the operation that mixes tokens; None if there are none.

    Args:
        builder: builder for the nodes that extract the row.
        view: the graph.
        values: the path's tensors in an example run.
        path: nodes in order.
    """
    taker = next((at for at in reversed(path) if _takes_one(view, view.nodes[at], values)), None)
    if taker is None:
        return None
    gather, inside = view.nodes[taker], {taker}
    shape = values[gather.input[0]].shape
    for at in reversed([at for at in path if at < taker]):
        users = set(view.consumers.get(view.nodes[at].output[0], [])).intersection(path)
        if users <= inside and values[view.nodes[at].output[0]].shape[:2] == shape[:2]:
            inside |= {at} if _works_on_each(view, view.nodes[at], values) else set()
    if len(inside) == 1:
        return None
    number = int(values[gather.input[1]].reshape(())) % shape[1]
    row = ClassTokenRow(number, {}, {}, {})
    names: dict[str, str] = {}

    def part(tensor: str) -> str:
        held = values.get(tensor)
        if held is None or held.ndim < 2 or held.shape[-2] != shape[1]:
            return tensor
        if tensor not in names:
            axis, at = held.ndim - 2, builder.constant(np.array([number], dtype=np.int64))
            names[tensor] = builder.add("Gather", tensor, at, axis=axis)
            row.whole[names[tensor]] = tensor
            row.values[names[tensor]] = held.take([number], axis=axis)
        return names[tensor]

    for at in inside - {taker}:
        node = onnx.NodeProto()
        node.CopyFrom(view.nodes[at])
        varies = (
            1 if node.op_type in ("MatMul", "LayerNormalization", "RMSNormalization", "ReduceMean") else len(node.input)
        )
        node.input[:] = [*map(part, node.input[:varies]), *node.input[varies:]]
        node.output[:] = [part(node.output[0])]
        row.nodes[at] = node
    row.nodes[taker] = helper.make_node("Reshape", [part(gather.input[0])], list(gather.output))
    return row


def _takes_one(view: GraphIndex, node: onnx.NodeProto, values: Values) -> bool:
    if node.op_type != "Gather" or values[node.input[0]].ndim != 3:
        return False
    return attributes(node).get("axis", 0) in (1, -2) and node.input[1] in values and values[node.input[1]].size == 1


def _works_on_each(view: GraphIndex, node: onnx.NodeProto, values: Values) -> bool:
    """Return True if a node processes each token of `[N, T, C]` separately."""
    if node.op_type in ("LayerNormalization", "RMSNormalization"):
        return attributes(node).get("axis", -1) in (-1, 2)
    if node.op_type == "MatMul":
        return view.is_weight(node.input[1]) and values[node.input[1]].ndim == 2
    if node.op_type == "ReduceMean":
        return reduced_axes(view, node, 3) == (2,) and values[node.output[0]].ndim == 3
    return node.op_type in _ALONE
