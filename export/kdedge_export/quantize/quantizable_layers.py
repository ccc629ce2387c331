"""The layers of a graph that can be quantized or left in float, one by one."""

from dataclasses import dataclass

from kdedge_export.onnx_graph.node_attributes import WEIGHTED
from kdedge_export.quantize.prepare import Rewritten
from kdedge_export.quantize.qdq import quantizable_nodes

__all__ = ["Layer", "layers_of"]


@dataclass(frozen=True)
class Layer:
    """A module's convolution or product with all that follows it up to the next one, wherever the module is used."""

    name: str
    """Of its weight in the PyTorch model, such as `layer1.0.conv2`; no two layers have the same."""
    nodes: frozenset[str]


def layers_of(rewritten: Rewritten) -> tuple[Layer, ...]:
    """The layers in the order of the graph; every node that can be quantized belongs to one."""
    quantizable = set(quantizable_nodes(rewritten))
    layers: dict[str, set[str]] = {}
    made_by: dict[str, str] = {}
    for node in rewritten.model.graph.node:
        before = [made_by[tensor] for tensor in node.input if tensor in made_by]
        if node.name in quantizable and node.op_type in WEIGHTED:
            name = _module(node.input[1])
            layers.setdefault(name, set())
            before = [name]
        if not before:
            continue
        latest = max(before, key=list(layers).index)
        made_by.update(dict.fromkeys(node.output, latest))
        if node.name in quantizable:
            layers[latest].add(node.name)
    return tuple(Layer(name, frozenset(members)) for name, members in layers.items())


def _module(weight: str) -> str:
    """A weight's module, without the wrappers that exporting puts around the model."""
    name = weight.removesuffix("_matrix").removesuffix(".weight")  # `flatten_pooled` writes matrices
    for wrapper in ("deployed.", "explained.", "model."):
        name = name.removeprefix(wrapper)
    return name
