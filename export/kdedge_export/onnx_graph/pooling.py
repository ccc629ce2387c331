"""Detection of means over whole axes, in the forms used by different frameworks."""

import onnx

from kdedge_export.onnx_graph.graph_index import GraphIndex
from kdedge_export.onnx_graph.node_attributes import attributes

__all__ = ["pooled_axes", "reduced_axes"]


def pooled_axes(
    view: GraphIndex, node: onnx.NodeProto, rank: int, output_shape: tuple[int, ...]
) -> tuple[int, ...] | None:
    """Return the axes over which a node computes the mean; None if it is not a mean over whole axes.

    An `AveragePool` with a single output position is a mean over the whole map.
    """
    if node.op_type == "GlobalAveragePool":
        return tuple(range(2, rank))
    if node.op_type == "AveragePool":
        is_whole = all(size == 1 for size in output_shape[2:]) and not any(attributes(node).get("pads", []))
        return tuple(range(2, rank)) if is_whole else None
    return reduced_axes(view, node, rank) if node.op_type == "ReduceMean" else None


def reduced_axes(view: GraphIndex, node: onnx.NodeProto, rank: int) -> tuple[int, ...] | None:
    """Return the axes over which a node reduces, from an attribute or an input; None if they vary."""
    given = attributes(node).get("axes")
    if given is None and len(node.input) > 1 and node.input[1]:
        listed = view.value(node.input[1])
        given = None if listed is None else listed.tolist()
    return None if given is None else tuple(sorted(axis % rank for axis in given))
