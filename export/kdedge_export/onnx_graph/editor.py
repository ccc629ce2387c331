"""Small changes to an ONNX graph in memory."""

from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

__all__ = ["GraphEditor", "gated_product"]


class GraphEditor:
    """A model whose nodes are looked up by the tensors between them, and replaced.

    Look-ups scan the graph, which has some hundreds of nodes; so they are always true, whatever was changed before.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.graph = model.graph

    def producer(self, tensor: str) -> onnx.NodeProto | None:
        """The node that computes a tensor; None for inputs and constants."""
        return next((node for node in self.graph.node if tensor in node.output), None)

    def consumers(self, tensor: str) -> list[onnx.NodeProto]:
        """The nodes that read a tensor."""
        return [node for node in self.graph.node if tensor in node.input]

    def constant(self, tensor: str) -> NDArray[Any] | None:
        """The value of an initializer; None for anything that is computed."""
        found = next((value for value in self.graph.initializer if value.name == tensor), None)
        return None if found is None else numpy_helper.to_array(found)

    def add_constant(self, name: str, value: NDArray[Any]) -> str:
        """Store an initializer, in place of one of this name."""
        # In place: a list that is rebuilt is a copy of all weights, and what was deleted lives as long as the model.
        found = next((tensor for tensor in self.graph.initializer if tensor.name == name), None)
        tensor = self.graph.initializer.add() if found is None else found
        tensor.CopyFrom(numpy_helper.from_array(np.asarray(value, order="C"), name))
        return name

    def shape(self, tensor: str) -> tuple[int | str, ...] | None:
        """The shape that was inferred for a tensor, with names for open dimensions; None where it is unknown."""
        values = (*self.graph.value_info, *self.graph.input, *self.graph.output)
        found = next((value for value in values if value.name == tensor), None)
        if found is None or not found.type.tensor_type.HasField("shape"):
            return None
        return tuple(item.dim_param or item.dim_value for item in found.type.tensor_type.shape.dim)

    def redirect(self, before: str, after: str, readers: Iterable[onnx.NodeProto] | None = None) -> None:
        """Let the readers of one tensor (all by default) read another."""
        for node in self.consumers(before) if readers is None else readers:
            for position, name in enumerate(node.input):
                if name == before:
                    node.input[position] = after

    def replace(self, old: Collection[str], new: Iterable[onnx.NodeProto]) -> None:
        """Put nodes in the place of the first of those that are named, and remove these."""
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
        """Put nodes behind the one that is named."""
        node = next(node for node in self.graph.node if node.name == name)
        kept = onnx.NodeProto()
        kept.CopyFrom(node)
        self.replace({name}, [kept, *new])

    def infer_shapes(self) -> None:
        """Infer types and shapes anew, after changes."""
        del self.graph.value_info[:]
        self.graph.value_info.extend(onnx.shape_inference.infer_shapes(self.model).graph.value_info)

    def drop_unused(self) -> None:
        """Remove nodes and constants that nothing reads."""
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
    """The product `x · gate(x)` that a gate belongs to, if nothing else reads `x` or the gate: SiLU and HardSwish."""
    readers = graph.consumers(gate.output[0])
    if len(readers) != 1 or readers[0].op_type != "Mul":
        return None
    product = readers[0]
    if gate.input[0] not in product.input or len(graph.consumers(gate.input[0])) != 2:
        return None
    return product
