"""Layers of a graph that can be quantized or kept in fp32 individually."""

from dataclasses import dataclass

import onnx_ir as ir

from kdedge_export.onnx_graph.node_attributes import WEIGHTED
from kdedge_export.quantization.prepare import PreparedGraph
from kdedge_export.quantization.qdq import quantizable_nodes

__all__ = ["QuantizableLayer", "layers_of"]


@dataclass(frozen=True)
class QuantizableLayer:
    """Convolution or product of a module with all following nodes up to the next one, wherever the module is used."""

    name: str
    """Path of its weight in the PyTorch model, such as `layer1.0.conv2`; unique."""
    nodes: frozenset[str]


def layers_of(rewritten: PreparedGraph) -> tuple[QuantizableLayer, ...]:
    """Return the layers in graph order; every quantizable node belongs to one."""
    quantizable = set(quantizable_nodes(rewritten))
    layers: dict[str, set[str]] = {}
    made_by: dict[ir.Value, str] = {}
    for node in rewritten.model.graph:
        before = [made_by[value] for value in node.inputs if value in made_by]
        if node.name in quantizable and node.op_type in WEIGHTED:
            name = _module(node.inputs[1].name)
            layers.setdefault(name, set())
            before = [name]
        if not before:
            continue
        latest = max(before, key=list(layers).index)
        made_by.update(dict.fromkeys(node.outputs, latest))
        if node.name in quantizable:
            layers[latest].add(node.name)
    return tuple(QuantizableLayer(name, frozenset(members)) for name, members in layers.items())


def _module(weight: str) -> str:
    """Return a weight's module path, without the wrappers added by export."""
    name = weight.removesuffix("_matrix").removesuffix(".weight")  # `flatten_squeeze_excite` stores matrices
    for wrapper in ("deployed.", "explained.", "model."):
        name = name.removeprefix(wrapper)
    return name
