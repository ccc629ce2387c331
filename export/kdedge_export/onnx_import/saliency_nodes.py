"""Nodes that compute the saliency map and the explained class."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import onnx

from kdedge_export.errors import HeadNotSupported
from kdedge_export.onnx_graph.autodiff import CannotDifferentiate, gradients
from kdedge_export.onnx_graph.builder import NodeBuilder
from kdedge_export.onnx_graph.graph_index import GraphIndex
from kdedge_export.onnx_graph.node_attributes import attributes
from kdedge_export.onnx_import.classifier_graph import ClassifierGraph
from kdedge_export.onnx_import.graph_methods import DEFAULT, SpatialFeatures, add_map_nodes
from kdedge_export.onnx_import.reciprocam import reciprocam
from kdedge_export.spatial_layout import SpatialLayout
from kdedge_runtime.saliency_methods import RECIPROCAM, SALIENCY_METHODS

__all__ = ["SaliencyNodes", "add_saliency_nodes", "explained_logits"]


@dataclass(frozen=True)
class SaliencyNodes:
    """Description of the map added to a graph."""

    method: str
    parts: ClassifierGraph
    """Analysis of the graph, with the target features."""
    features: str
    """Tensor the map is computed from: float32 spatial features."""
    gradient: str | None
    """Gradient of the explained logit, float32, which broadcasts against the features; None for methods without one.

    For Grad-CAM it is the mean over positions.
    """
    no_derivative_of: str | None = None
    """Operator without a derivative, if ReciproCAM is the fallback."""


def add_saliency_nodes(
    builder: NodeBuilder, view: GraphIndex, find: Callable[[bool], ClassifierGraph], method: str | None = None
) -> SaliencyNodes:
    """Add `class_index` (int64 `[1]`, -1 for the top-1 class), `explained_class` (int64 `[N]`) and `saliency_map`.

    The map is raw float32 `[N, h, w]`; see `kdedge_export.onnx_import.graph_methods` for the methods. ReciproCAM runs
    the tail on the features of one position at a time (Byun and Lee, CVPR workshops 2024, eq. 1). The logit without
    any features is subtracted, so that the sign is meaningful. For pooling and one dense layer it equals Grad-CAM.
    Tokens without a spatial position, such as a class token, are kept in every run (Byun and Lee, 2023,
    arXiv:2310.02588).

    Args:
        builder: builder for the nodes.
        view: the graph.
        find: function that analyzes the graph; with True, it uses features that all paths to the logits go through.
        method: None uses HiResCAM if every operator of the tail has a derivative, else ReciproCAM.

    Raises:
        HeadNotSupported: the method cannot explain this tail.
    """
    saliency = _added(builder, view, find, method)
    rounded = _take_rounded(builder, view)
    return replace(saliency, features=rounded.get(saliency.features, saliency.features))


def _take_rounded(builder: NodeBuilder, view: GraphIndex) -> dict[str, str]:
    """Use dequantized tensors of a quantized graph instead of the original ones.

    An additional reader of a layer's float result would keep ONNX Runtime from computing the layer on integers, and
    change the outputs.
    """
    rounded: dict[str, str] = {}
    for node in view.nodes:
        before = view.producer(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if before is not None and before.op_type == "QuantizeLinear":
            rounded.setdefault(before.input[0], node.output[0])
    for node in builder.nodes:
        node.input[:] = [rounded.get(item, item) for item in node.input]
    return rounded


def _added(
    builder: NodeBuilder, view: GraphIndex, find: Callable[[bool], ClassifierGraph], named: str | None
) -> SaliencyNodes:
    if named == RECIPROCAM:
        return _by_reciprocam(builder, view, find(True))
    parts, kept = find(False), len(builder.nodes)
    method = named or DEFAULT
    try:
        return _by_positions(builder, view, parts, method)
    except CannotDifferentiate as error:
        del builder.nodes[kept:]  # remove partially written nodes
        why = f"{SALIENCY_METHODS[method].title} needs the derivative of {error}, which kdedge does not have."
        if named is not None:
            raise HeadNotSupported(f"{why} Remove --method to use ReciproCAM, which needs none.") from error
        try:
            return _by_reciprocam(builder, view, parts if parts.is_cut else find(True), str(error))
        except HeadNotSupported as refused:
            raise HeadNotSupported(f"{why} {refused}") from refused


def _by_reciprocam(
    builder: NodeBuilder, view: GraphIndex, parts: ClassifierGraph, why: str | None = None
) -> SaliencyNodes:
    one_hot = _one_hot_of(builder, parts, _explained_class(builder, parts))
    reciprocam(builder, view, parts, one_hot)
    return SaliencyNodes(RECIPROCAM, parts, parts.target, None, why)


def _by_positions(builder: NodeBuilder, view: GraphIndex, parts: ClassifierGraph, method: str) -> SaliencyNodes:
    explained, layout, value = _explained_class(builder, parts), parts.layout, parts.values[parts.target]
    gradient = None if method == "eigencam" else _gradient(builder, view, parts, explained, is_mean=method == "gradcam")
    features = builder.float32(_positions_of(builder, parts.target, layout), value.dtype)
    positions = SpatialFeatures(builder, layout, value.shape[layout.channel_axis], features, gradient or "")
    _name_map(builder, add_map_nodes(method, positions), parts)
    return SaliencyNodes(method, parts, features, gradient)


def _explained_class(builder: NodeBuilder, parts: ClassifierGraph) -> str:
    logits = _two_axes(builder, parts, parts.logits)
    top = builder.add("ArgMax", logits, axis=1, keepdims=0)
    is_open = builder.add("Less", "class_index", builder.constant(np.array(0, dtype=np.int64)))
    return builder.add("Where", is_open, top, "class_index", name="explained_class")


def explained_logits(view: GraphIndex) -> str | None:
    """Return the logits explained by a map in the graph; None if kdedge did not write it."""
    chosen = view.producer("explained_class")
    top = None if chosen is None or chosen.op_type != "Where" else view.producer(chosen.input[1])
    return None if top is None or top.op_type != "ArgMax" else str(top.input[0])


def _two_axes(builder: NodeBuilder, parts: ClassifierGraph, logits: str) -> str:
    return logits if parts.values[parts.logits].ndim == 2 else builder.reshape(logits, [-1, parts.classes])


def _one_hot_of(builder: NodeBuilder, parts: ClassifierGraph, explained: str) -> str:
    """Return the one-hot explained class of each image, in the shape and type of the logits.

    Args:
        builder: builder of the graph's nodes.
        parts: analysis of the graph.
        explained: name of the classes, int64 `[N]`.

    Returns:
        The tensor's name.
    """
    value = parts.values[parts.logits]
    off_on = builder.constant(np.array([0, 1], dtype=value.dtype))
    one_hot = builder.add("OneHot", explained, builder.constant(np.array([parts.classes], dtype=np.int64)), off_on)
    return one_hot if value.ndim == 2 else builder.reshape(one_hot, [-1, *value.shape[1:]])


def _gradient(builder: NodeBuilder, view: GraphIndex, parts: ClassifierGraph, explained: str, *, is_mean: bool) -> str:
    """Add the gradient of the explained logit at each position, float32; after global pooling shared by all.

    Args:
        builder: builder for the nodes.
        view: the graph.
        parts: analysis of the graph.
        explained: name of the classes, int64 `[N]`.
        is_mean: compute the mean over positions, sufficient for Grad-CAM.
    """
    layout = parts.layout
    dtype, rank = parts.values[parts.target].dtype, parts.values[parts.target].ndim
    pointwise = _pointwise_convolution(view, parts)
    source = parts.pooled or (parts.target if pointwise is None else pointwise.output[0])
    one_hot = _one_hot_of(builder, parts, explained)
    slope = gradients(builder, view, parts.values, parts.logits, explained, one_hot, source)[source]
    if parts.pooled is not None:  # the gradient of a mean is 1 / (h·w) of the mean's own at every position
        positions = builder.add("Div", builder.add("Size", parts.target), builder.add("Size", parts.pooled))
        shape = [-1] + [1] * (rank - 1)
        shape[layout.channel_axis] = parts.values[parts.target].shape[layout.channel_axis]
        over = builder.cast(positions, np.dtype(np.float32))
        return builder.add("Div", builder.float32(builder.reshape(slope, shape), dtype), over)
    slope = builder.float32(_positions_of(builder, slope, layout), dtype)
    if is_mean:
        slope = builder.reduce("ReduceMean", slope, layout.position_axes, keepdims=True)
    if pointwise is not None:  # linear at each position, so the mean can be computed first
        kernel = builder.float32(pointwise.input[1], dtype)
        slope = builder.add("ConvTranspose", slope, kernel, kernel_shape=[1, 1])
    return slope


def _positions_of(builder: NodeBuilder, tensor: str, layout: SpatialLayout) -> str:
    """Remove the prefix tokens."""
    return builder.cut(tensor, 1, layout.prefix) if layout.prefix else tensor


def _name_map(builder: NodeBuilder, positions: str, parts: ClassifierGraph) -> None:
    """Reshape tokens `[N, h·w]` to a map if needed, and name the output."""
    if parts.layout.kind == "tokens" and (parts.has_fixed_size or parts.planes is None):
        positions = builder.reshape(
            positions, [0, *parts.positions]
        )  # with a dynamic size, larger images are tested later
    elif parts.layout.kind == "tokens" and parts.planes is not None:
        planes, axis = parts.planes
        height_and_width = builder.constant(np.array([axis, axis + 1], dtype=np.int64))
        size = builder.add("Gather", builder.add("Shape", planes), height_and_width)
        every = builder.constant(np.array([-1], dtype=np.int64))
        positions = builder.add("Reshape", positions, builder.add("Concat", every, size, axis=0))
    builder.add("Identity", positions, name="saliency_map")


def _pointwise_convolution(view: GraphIndex, parts: ClassifierGraph) -> onnx.NodeProto | None:
    """Return the 1×1 convolution that is the target's only consumer, as in SqueezeNet; else None."""
    takers = [view.nodes[at] for at in view.between(parts.target, parts.logits) if parts.target in view.nodes[at].input]
    if len(takers) != 1 or takers[0].op_type != "Conv" or not view.is_weight(takers[0].input[1]):
        return None
    given = attributes(takers[0])
    is_plain = given.get("group", 1) == 1 and not any(given.get("pads", [])) and set(given.get("strides", [1])) == {1}
    return takers[0] if is_plain and parts.values[takers[0].input[1]].shape[2:] == (1, 1) else None
