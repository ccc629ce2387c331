"""Squeeze-and-excitation as matrix products, since convolutions on one value per channel only add overhead."""

import numpy as np
import onnx
from onnx import helper

from kdedge_export.onnx_graph.editor import GraphEditor
from kdedge_export.onnx_graph.node_attributes import attributes

__all__ = ["flatten_squeeze_excite"]

_POINTWISE = {"Relu", "Clip", "HardSigmoid", "Sigmoid", "HardSwish", "Mul", "Add"}


def _is_pooled(graph: GraphEditor, tensor: str) -> bool:
    """Return True if a tensor has one value per channel, `[N, C, 1, 1]`."""
    shape = graph.shape(tensor)
    return shape is not None and len(shape) == 4 and shape[2:] == (1, 1)


def flatten_squeeze_excite(graph: GraphEditor, head: frozenset[str]) -> frozenset[str]:
    """Rewrite operations on pooled values to matrices `[N, C]`.

    Returns:
        The names of these nodes.
    """
    region = {
        node.name
        for node in graph.graph.node
        if node.name not in head and _is_pooled(graph, node.output[0]) and _is_flat(graph, node)
    }
    flat = dict[str, str]()
    for node in [node for node in graph.graph.node if node.name in region]:
        before = []
        for name in node.input:
            if name not in flat and _is_pooled(graph, name):
                flat[name] = f"{name}_flat"
                producer = graph.producer(name)
                assert producer is not None
                flatten = helper.make_node("Flatten", [name], [flat[name]], f"{name}_flatten", axis=1)
                graph.insert_after(producer.name, [flatten])
            before.append(flat.get(name, name))
        output = node.output[0]
        flat[output] = f"{output}_flat"
        if node.op_type == "Conv":
            weight = graph.constant(node.input[1])
            assert weight is not None
            before[1] = graph.add_constant(f"{node.input[1]}_matrix", weight[:, :, 0, 0])
            new = helper.make_node("Gemm", before, [flat[output]], node.name, transB=1)
        else:
            new = helper.make_node(node.op_type, before, [flat[output]], node.name, **attributes(node))
        nodes = [new]
        outside = [reader for reader in graph.consumers(output) if reader.name not in region]
        if outside:
            shape = graph.add_constant("pooled_shape", np.array([0, -1, 1, 1]))
            nodes.append(helper.make_node("Reshape", [flat[output], shape], [output], f"{output}_unflatten"))
        graph.replace({node.name}, nodes)
    return frozenset(region)


def _is_flat(graph: GraphEditor, node: onnx.NodeProto) -> bool:
    """Return True if a node computes the same on a matrix: a 1 × 1 convolution, or an elementwise function."""
    if node.op_type == "Conv":
        weight = graph.constant(node.input[1])
        settings = attributes(node)
        plain = settings.get("group", 1) == 1 and not any(settings.get("pads", [0]))
        return weight is not None and weight.shape[2:] == (1, 1) and plain and _is_pooled(graph, node.input[0])
    if node.op_type not in _POINTWISE:
        return False
    constants = (graph.constant(name) for name in node.input if name)
    return all(value is None or value.size == 1 for value in constants) and all(
        _is_pooled(graph, name) or graph.constant(name) is not None for name in node.input if name
    )
