"""Nodes of an exported graph that quantization keeps in fp32: the last layer and the map."""

import onnx

from kdedge_export.onnx_graph.node_attributes import WEIGHTED

__all__ = ["downstream", "last_layer_and_map"]


def downstream(graph: onnx.GraphProto, tensor: str) -> frozenset[str]:
    """Return the names of all nodes that depend on a tensor, such as the target layer's activations."""
    reached, nodes = {tensor}, set()
    for node in graph.node:  # ONNX stores nodes in topological order
        if reached.intersection(node.input):
            reached.update(node.output)
            nodes.add(node.name)
    return frozenset(nodes)


def last_layer_and_map(graph: onnx.GraphProto, logits: str) -> frozenset[str]:
    """Return the names of all nodes except those that lead to the last layer of the logits.

    Args:
        graph: the graph, including the derivative of its map if it has one.
        logits: name of the logits output.
    """
    needed, forward = {logits}, []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            forward.append(node)
    last = next(index for index, node in enumerate(forward) if node.op_type in WEIGHTED)
    body = {node.name for node in forward[last + 1 :]}
    return frozenset(node.name for node in graph.node if node.name not in body)
