"""The layers of a graph that can be quantized or left in float, one by one."""

from dataclasses import dataclass

from kdedge_export.graph.head_nodes import WEIGHTED
from kdedge_export.quantize.insert import quantizable_nodes
from kdedge_export.quantize.rewrite import Rewritten

__all__ = ["Layer", "layers_of"]


@dataclass(frozen=True)
class Layer:
    """A convolution or product with all that follows it up to the next one."""

    name: str
    """Of its weight in the PyTorch model, such as `layer1.0.conv2`."""
    nodes: frozenset[str]


def layers_of(rewritten: Rewritten) -> tuple[Layer, ...]:
    """The layers in the order of the graph; every node that can be quantized belongs to one."""
    quantizable = set(quantizable_nodes(rewritten))
    names: list[str] = []
    nodes: list[set[str]] = []
    made_by: dict[str, int] = {}
    for node in rewritten.model.graph.node:
        before = [made_by[tensor] for tensor in node.input if tensor in made_by]
        if node.name in quantizable and node.op_type in WEIGHTED:
            names.append(_module(node.input[1]))
            nodes.append(set())
            before = [len(names) - 1]
        if not before:
            continue
        made_by.update(dict.fromkeys(node.output, max(before)))
        if node.name in quantizable:
            nodes[max(before)].add(node.name)
    return tuple(Layer(name, frozenset(members)) for name, members in zip(names, nodes, strict=True))


def _module(weight: str) -> str:
    """A weight's module, without the wrappers that exporting puts around the model."""
    name = weight.removesuffix("_matrix").removesuffix(".weight")  # `flatten_pooled` writes matrices
    for wrapper in ("deployed.", "explained.", "model."):
        name = name.removeprefix(wrapper)
    return name
