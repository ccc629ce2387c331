"""Nodes of a front end that computes with weights, such as a Fourier transform, which stay in fp32."""

import onnx_ir as ir

from kdedge_export.onnx_graph.node_attributes import WEIGHTED

__all__ = ["front_end_nodes", "is_front_end_weight"]

_OWNER = "front_end."
"""Part of the path of every weight of a front end, see `kdedge_export.torch_export.wrappers`."""


def is_front_end_weight(name: str | None) -> bool:
    """Return True if a tensor is a weight of a front end."""
    return _OWNER in (name or "")


def front_end_nodes(graph: ir.Graph) -> frozenset[str]:
    """Return the names of the nodes of a front end: those that read its weights, and all nodes before them.

    Empty for a front end without layers, such as the normalization of images, which other rewrites handle.
    """
    found: set[ir.Node] = set()
    # Against the order of the graph, so that readers come before the nodes that they read.
    for node in reversed(tuple(graph)):
        reads = any(value is not None and is_front_end_weight(value.name) for value in node.inputs)
        if reads or any(reader in found for value in node.outputs for reader in value.consumers()):
            found.add(node)
    if not any(node.op_type in WEIGHTED for node in found):
        return frozenset()
    return frozenset(node.name for node in found if node.name is not None)
