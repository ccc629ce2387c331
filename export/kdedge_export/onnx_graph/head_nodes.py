"""Which nodes of an exported graph quantization leaves float: those that decide the answer last, and make the map."""

import onnx

from kdedge_export.onnx_graph.node_attributes import WEIGHTED

__all__ = ["downstream", "last_layer_and_map"]


def downstream(graph: onnx.GraphProto, tensor: str) -> frozenset[str]:
    """Names of all nodes that depend on a tensor, such as the activations of the target layer."""
    reached, nodes = {tensor}, set()
    for node in graph.node:  # ONNX stores nodes in topological order
        if reached.intersection(node.input):
            reached.update(node.output)
            nodes.add(node.name)
    return frozenset(nodes)


def last_layer_and_map(graph: onnx.GraphProto, logits: str) -> frozenset[str]:
    """Names of all but the nodes that lead to the last layer of the logits.

    Args:
        graph: with the derivative that its map takes, if it gives one.
        logits: name of that output.
    """
    needed, forward = {logits}, []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            forward.append(node)
    last = next(index for index, node in enumerate(forward) if node.op_type in WEIGHTED)
    body = {node.name for node in forward[last + 1 :]}
    return frozenset(node.name for node in graph.node if node.name not in body)
