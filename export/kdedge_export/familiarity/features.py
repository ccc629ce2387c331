"""Pooled features of a graph: the input of its last layer with weights, one vector per sample."""

from collections.abc import Mapping
from dataclasses import dataclass

from kdedge_export.onnx_graph.builder import NodeBuilder
from kdedge_export.onnx_graph.graph_index import Array, GraphIndex, run_graph
from kdedge_export.onnx_graph.node_attributes import WEIGHTED

__all__ = ["PooledFeatures", "find_features"]


@dataclass(frozen=True)
class PooledFeatures:
    """Pooled features of a graph."""

    tensor: str
    """Name of the tensor, float32 `[N, D]`."""
    size: int
    """Number of features, D."""


def find_features(
    view: GraphIndex, builder: NodeBuilder, logits: str, feed: Mapping[str, Array]
) -> PooledFeatures | None:
    """Find the input of the last layer with weights, and add the mean over its positions if it has any.

    Args:
        view: the graph.
        builder: builder of the added nodes.
        logits: the logits tensor.
        feed: at least two samples by the name of the graph's input, and its other inputs; their run gives the shape.

    Returns:
        The features; None if no layer with weights leads to the logits, or its input has no batch axis.
    """
    source, samples = next(iter(feed.items()))
    for at in reversed(view.between(source, logits)):
        node = view.nodes[at]
        if node.op_type in WEIGHTED and node.input[0] in view.varying and view.is_weight(node.input[1]):
            break
    else:
        return None
    values = run_graph(view.model, [node.input[0]], feed, "the graph")[node.input[0]]
    if values.ndim < 2 or len(values) != len(samples) or values.dtype.kind != "f":
        return None
    tensor = builder.float32(node.input[0], values.dtype)
    if values.ndim == 2:
        return PooledFeatures(tensor, values.shape[1])
    channels = 1 if node.op_type == "Conv" else values.ndim - 1
    positions = [axis for axis in range(1, values.ndim) if axis != channels]
    return PooledFeatures(builder.reduce("ReduceMean", tensor, positions, keepdims=False), values.shape[channels])
