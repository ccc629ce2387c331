"""In-memory edits of an ONNX graph."""

from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

__all__ = ["GraphEditor", "gated_product"]


class GraphEditor:
    """Look up and replace nodes of a model by their tensors.

    Lookups scan the graph, which has some hundreds of nodes, so they are valid after any change.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.graph = model.graph

    def producer(self, tensor: str) -> onnx.NodeProto | None:
        """Return the node that computes a tensor; None for inputs and constants."""
        return next((node for node in self.graph.node if tensor in node.output), None)

    def consumers(self, tensor: str) -> list[onnx.NodeProto]:
        """Return the nodes that read a tensor."""
        return [node for node in self.graph.node if tensor in node.input]

    def constant(self, tensor: str) -> NDArray[Any] | None:
        """Return the value of an initializer; None for computed tensors."""
        found = next((value for value in self.graph.initializer if value.name == tensor), None)
        return None if found is None else numpy_helper.to_array(found)

    def add_constant(self, name: str, value: NDArray[Any]) -> str:
        """Store an initializer, replacing one of the same name."""
        # Done in place: rebuilding the list would copy all weights, and deleted entries live as long as the model.
        found = next((tensor for tensor in self.graph.initializer if tensor.name == name), None)
        tensor = self.graph.initializer.add() if found is None else found
        tensor.CopyFrom(numpy_helper.from_array(np.asarray(value, order="C"), name))
        return name

    def shape(self, tensor: str) -> tuple[int | str, ...] | None:
        """Return the inferred shape of a tensor, with names for dynamic dimensions; None if unknown."""
        values = (*self.graph.value_info, *self.graph.input, *self.graph.output)
        found = next((value for value in values if value.name == tensor), None)
        if found is None or not found.type.tensor_type.HasField("shape"):
            return None
        return tuple(item.dim_param or item.dim_value for item in found.type.tensor_type.shape.dim)

    def redirect(self, before: str, after: str, readers: Iterable[onnx.NodeProto] | None = None) -> None:
        """Redirect the readers of one tensor (all by default) to another."""
        for node in self.consumers(before) if readers is None else readers:
            for position, name in enumerate(node.input):
                if name == before:
                    node.input[position] = after

    def replace(self, old: Collection[str], new: Iterable[onnx.NodeProto]) -> None:
        """Replace the named nodes by others, at the position of the first."""
        nodes: list[onnx.NodeProto] = []
        placed = False
        for node in self.graph.node:
            if node.name not in old:
                nodes.append(node)
            elif not placed:
                placed = True
                nodes.extend(new)
        del self.graph.node[:]
        self.graph.node.extend(nodes)

    def insert_after(self, name: str, new: Iterable[onnx.NodeProto]) -> None:
        """Insert nodes after the named one."""
        node = next(node for node in self.graph.node if node.name == name)
        kept = onnx.NodeProto()
        kept.CopyFrom(node)
        self.replace({name}, [kept, *new])

    def infer_shapes(self) -> None:
        """Infer types and shapes again after changes."""
        del self.graph.value_info[:]
        self.graph.value_info.extend(onnx.shape_inference.infer_shapes(self.model).graph.value_info)

    def drop_unused(self) -> None:
        """Remove unused nodes and constants."""
        wanted = {value.name for value in self.graph.output}
        kept: list[onnx.NodeProto] = []
        for node in reversed(self.graph.node):
            if wanted.intersection(node.output):
                wanted.update(node.input)
                kept.insert(0, node)
        del self.graph.node[:]
        self.graph.node.extend(kept)
        for index in reversed(range(len(self.graph.initializer))):
            if self.graph.initializer[index].name not in wanted:
                del self.graph.initializer[index]


def gated_product(graph: GraphEditor, gate: onnx.NodeProto) -> onnx.NodeProto | None:
    """Return the product `x · gate(x)` of a SiLU or HardSwish gate, or None if anything else reads `x` or the gate."""
    readers = graph.consumers(gate.output[0])
    if len(readers) != 1 or readers[0].op_type != "Mul":
        return None
    product = readers[0]
    if gate.input[0] not in product.input or len(graph.consumers(gate.input[0])) != 2:
        return None
    return product
