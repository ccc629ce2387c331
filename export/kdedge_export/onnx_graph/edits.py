"""Edits of ONNX graphs that `onnx_ir` does not have as one call."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import ShapeInferencePass

__all__ = [
    "constant_input",
    "gated_product",
    "has_input",
    "infer_shapes",
    "initializer",
    "make_node",
    "replace_node",
    "to_proto",
]


def make_node(
    op_type: str, inputs: Sequence[ir.Value], output: str, name: str | None = None, **attributes: Any
) -> ir.Node:
    """Create a node with one output, named after it by default."""
    return ir.node(op_type, inputs, attributes, outputs=[ir.Value(name=output)], name=name or f"node_{output}")


def has_input(node: ir.Node, index: int) -> bool:
    """Return True if a node has this input; an optional one may be missing, or omitted by an empty name."""
    return len(node.inputs) > index and node.inputs[index] is not None


def constant_input(node: ir.Node, index: int) -> NDArray[Any] | None:
    """Return the value of a node's input; None if it is missing, omitted or computed."""
    value = node.inputs[index].const_value if has_input(node, index) else None
    return None if value is None else value.numpy()


def initializer(graph: ir.Graph, name: str, array: NDArray[Any]) -> ir.Value:
    """Store an initializer, replacing the content of one of the same name."""
    value, tensor = graph.initializers.get(name) or ir.Value(name=name), ir.tensor(np.asarray(array, order="C"))
    value.const_value, value.shape, value.dtype = tensor, tensor.shape, tensor.dtype
    graph.register_initializer(value)
    return value


def replace_node(node: ir.Node, nodes: Sequence[ir.Node]) -> None:
    """Replace a node by others; the output of the last one takes the place and name of the node's."""
    graph, (before,), (after,) = node.graph, node.outputs, nodes[-1].outputs
    after.name, after.type, after.shape = before.name, before.type, before.shape
    before.replace_all_uses_with(after, replace_graph_outputs=True)
    graph.insert_after(node, nodes)
    graph.remove(node, safe=True)


def infer_shapes(model: ir.Model) -> None:
    """Infer types and shapes again after changes."""
    for node in model.graph:
        for value in node.outputs:
            value.shape = value.shape if value.is_graph_output() else None
    ShapeInferencePass(check_type=False, strict_mode=False, data_prop=False)(model)


def to_proto(model: ir.Model) -> onnx.ModelProto:
    """Convert a model to the form of files, without types of initializers, which are stored with their values."""
    proto = ir.to_proto(model)
    typed = [value for value in proto.graph.value_info if value.name not in model.graph.initializers]
    del proto.graph.value_info[:]
    proto.graph.value_info.extend(typed)
    return proto


def gated_product(gate: ir.Node) -> ir.Node | None:
    """Return the product `x · gate(x)` of a SiLU or HardSwish gate, or None if anything else reads `x` or the gate."""
    x, readers = gate.inputs[0], gate.outputs[0].consumers()
    if len(readers) != 1 or readers[0].op_type != "Mul" or x not in readers[0].inputs or len(x.consumers()) != 2:
        return None
    return readers[0]
