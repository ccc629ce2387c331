"""Test whether perturbing a tensor's spatial features changes the logits."""

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import helper, numpy_helper

from kdedge_export.onnx_graph.graph_index import FLOATS, Array, GraphIndex, TensorProbe, run_graph
from kdedge_export.spatial_layout import SpatialLayout

__all__ = ["influences_logits"]

_MIN_CHANGE = 1e-6
"""Smallest change of the logits relative to the largest one; smaller changes are rounding."""


def influences_logits(
    view: GraphIndex, tensor: str, layout: SpatialLayout, logits: str, feed: Mapping[str, Array], name: str
) -> bool:
    """Perturb spatial float features at random and test whether the logits change.

    Args:
        view: the graph.
        tensor: the features.
        layout: their layout.
        logits: the tensor at the end of the path.
        feed: an example.
        name: name used in messages.
    """
    read = {tensor, *_read_from_outside(view, tensor, logits)}
    held = dict(feed) | {item: value for item in read if (value := view.value(item)) is not None}
    held |= run_graph(view.model, sorted(read - held.keys()), feed, name)
    value = held[tensor]
    if value.dtype.name not in FLOATS:
        return False
    tail = _tail(view, tensor, logits, {item: held[item] for item in read}, name)
    spread = np.random.default_rng(0).normal(scale=float(value.astype(np.float64).std()) or 1.0, size=value.shape)
    spread *= layout.over_positions(np.ones((layout.height, layout.width)), 0.0)
    before, after = (tail({tensor: x.astype(value.dtype)})[logits] for x in (value, value + spread))
    return bool(np.abs(after - before).max() > _MIN_CHANGE * max(float(np.abs(before).max()), 1e-12))


def _read_from_outside(view: GraphIndex, tensor: str, logits: str) -> set[str]:
    """Return the tensors read by the nodes after a tensor that do not depend on it."""
    path = [view.nodes[at] for at in view.between(tensor, logits)]
    inside = {tensor}.union(*(node.output for node in path))
    return {item for node in path for item in view.inputs_of(node)} - inside


def _tail(view: GraphIndex, tensor: str, logits: str, held: Mapping[str, Array], name: str) -> TensorProbe:
    """Extract the graph after a tensor; its other inputs are constants from `held`."""
    kind = helper.np_dtype_to_tensor_dtype(held[tensor].dtype)
    graph = helper.make_graph(
        [view.nodes[at] for at in view.between(tensor, logits)],
        "tail",
        [helper.make_tensor_value_info(tensor, kind, [None] * held[tensor].ndim)],
        [onnx.ValueInfoProto(name=logits)],
        [numpy_helper.from_array(np.asarray(held[item]), item) for item in sorted(held.keys() - {tensor})],
    )
    model = helper.make_model(graph, opset_imports=view.model.opset_import, ir_version=view.model.ir_version)
    return TensorProbe(model, [logits], name)
