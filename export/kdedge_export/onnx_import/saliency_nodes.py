"""The nodes that give a saliency map, and the class that it explains."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import onnx

from kdedge_export.errors import HeadNotSupported
from kdedge_export.onnx_graph.autodiff import CannotDifferentiate, gradients
from kdedge_export.onnx_graph.builder import Builder
from kdedge_export.onnx_graph.graph_index import GraphView
from kdedge_export.onnx_graph.node_attributes import attributes
from kdedge_export.onnx_import.classifier_graph import Anatomy
from kdedge_export.onnx_import.graph_methods import DEFAULT, RECIPROCAM, TITLES, Cells, Method, add_cells
from kdedge_export.onnx_import.reciprocam import reciprocam
from kdedge_export.spatial_layout import Layout

__all__ = ["Saliency", "add_saliency", "explained_logits"]


@dataclass(frozen=True)
class Saliency:
    """What was added to a graph."""

    method: Method
    parts: Anatomy
    """Of the graph, with the features that the map looks at."""
    features: str
    """The tensor that the map is made of: float32, of the cells alone."""
    gradient: str | None
    """The explained logit's gradient, float32, which broadcasts against the features; None for methods without one.

    Grad-CAM's is the mean over the cells.
    """
    no_derivative_of: str | None = None
    """The operator that has no derivative here, where ReciproCAM is the fallback."""


def add_saliency(
    builder: Builder, view: GraphView, find: Callable[[bool], Anatomy], method: Method | None = None
) -> Saliency:
    """Add `class_index` (int64 `[1]`, -1: the top class), `explained_class` (int64 `[N]`) and `saliency_map`.

    The map is float32 `[N, h, w]`, raw; `kdedge_export.onnx_import.graph_methods` names its methods. ReciproCAM runs
    the tail on the features of one map position at a time (Byun and Lee, CVPR workshops 2024, eq. 1). The logit of no
    features at all is subtracted, so that the sign is meaningful. For pooling and one dense layer it equals Grad-CAM.
    Tokens outside the image grid, such as a class token, are in every run (Byun and Lee, 2023, arXiv:2310.02588).

    Args:
        builder: takes the nodes.
        view: the graph.
        find: gives the parts of the graph; with True, so that all of the answer goes through the features.
        method: None takes HiResCAM where every operator of the tail has a derivative here, else ReciproCAM.

    Raises:
        HeadNotSupported: the method cannot explain this tail.
    """
    saliency = _added(builder, view, find, method)
    rounded = _take_rounded(builder, view)
    return replace(saliency, features=rounded.get(saliency.features, saliency.features))


def _take_rounded(builder: Builder, view: GraphView) -> dict[str, str]:
    """In a quantized graph take dequantized tensors, and not what they were before.

    Whatever else takes a layer's result keeps ONNX Runtime from computing the layer on integers, and changes answers.
    """
    rounded: dict[str, str] = {}
    for node in view.nodes:
        before = view.maker(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if before is not None and before.op_type == "QuantizeLinear":
            rounded.setdefault(before.input[0], node.output[0])
    for node in builder.nodes:
        node.input[:] = [rounded.get(item, item) for item in node.input]
    return rounded


def _added(builder: Builder, view: GraphView, find: Callable[[bool], Anatomy], named: Method | None) -> Saliency:
    if named == RECIPROCAM:
        return _by_reciprocam(builder, view, find(True))
    parts, kept = find(False), len(builder.nodes)
    method = named or DEFAULT
    try:
        return _by_cells(builder, view, parts, method)
    except CannotDifferentiate as error:
        del builder.nodes[kept:]  # the half that was written
        why = f"{TITLES[method]} needs the derivative of {error}, which kdedge does not have."
        if named is not None:
            raise HeadNotSupported(f"{why} Leave --method out: ReciproCAM needs none.") from error
        try:
            return _by_reciprocam(builder, view, parts if parts.is_cut else find(True), str(error))
        except HeadNotSupported as refused:
            raise HeadNotSupported(f"{why} {refused}") from refused


def _by_reciprocam(builder: Builder, view: GraphView, parts: Anatomy, why: str | None = None) -> Saliency:
    one_hot = _one_hot_of(builder, parts, _explained_class(builder, parts))
    reciprocam(builder, view, parts, one_hot)
    return Saliency(RECIPROCAM, parts, parts.target, None, why)


def _by_cells(builder: Builder, view: GraphView, parts: Anatomy, method: Method) -> Saliency:
    explained, layout, value = _explained_class(builder, parts), parts.layout, parts.values[parts.target]
    gradient = None if method == "eigencam" else _gradient(builder, view, parts, explained, is_mean=method == "gradcam")
    features = builder.float32(_cells_of(builder, parts.target, layout), value.dtype)
    cells = Cells(builder, layout, value.shape[layout.channel_axis], features, gradient or "")
    _name_map(builder, add_cells(method, cells), parts)
    return Saliency(method, parts, features, gradient)


def _explained_class(builder: Builder, parts: Anatomy) -> str:
    logits = _two_axes(builder, parts, parts.logits)
    top = builder.add("ArgMax", logits, axis=1, keepdims=0)
    is_open = builder.add("Less", "class_index", builder.constant(np.array(0, dtype=np.int64)))
    return builder.add("Where", is_open, top, "class_index", name="explained_class")


def explained_logits(view: GraphView) -> str | None:
    """The logits that a map in the graph explains; None where kdedge did not write it."""
    chosen = view.maker("explained_class")
    top = None if chosen is None or chosen.op_type != "Where" else view.maker(chosen.input[1])
    return None if top is None or top.op_type != "ArgMax" else str(top.input[0])


def _two_axes(builder: Builder, parts: Anatomy, logits: str) -> str:
    return logits if parts.values[parts.logits].ndim == 2 else builder.reshape(logits, [-1, parts.classes])


def _one_hot_of(builder: Builder, parts: Anatomy, explained: str) -> str:
    """One for each image's class and zero elsewhere, in the shape and type of the logits.

    Args:
        builder: of the graph's nodes.
        parts: what was found in the graph.
        explained: name of the classes, int64 `[N]`.

    Returns:
        The tensor's name.
    """
    value = parts.values[parts.logits]
    off_on = builder.constant(np.array([0, 1], dtype=value.dtype))
    one_hot = builder.add("OneHot", explained, builder.constant(np.array([parts.classes], dtype=np.int64)), off_on)
    return one_hot if value.ndim == 2 else builder.reshape(one_hot, [-1, *value.shape[1:]])


def _gradient(builder: Builder, view: GraphView, parts: Anatomy, explained: str, *, is_mean: bool) -> str:
    """The gradient of the explained logit at the cells, float32; behind global pooling one for all cells.

    Args:
        builder: takes the nodes.
        view: the graph.
        parts: of the graph.
        explained: name of the classes, int64 `[N]`.
        is_mean: take the mean over the cells, which is all that Grad-CAM needs.
    """
    layout = parts.layout
    dtype, rank = parts.values[parts.target].dtype, parts.values[parts.target].ndim
    pointwise = _pointwise_convolution(view, parts)
    source = parts.pooled or (parts.target if pointwise is None else pointwise.output[0])
    one_hot = _one_hot_of(builder, parts, explained)
    slope = gradients(builder, view, parts.values, parts.logits, explained, one_hot, source)[source]
    if parts.pooled is not None:  # the gradient of a mean is the same at every cell: one h·w-th of the mean's own
        cells = builder.add("Div", builder.add("Size", parts.target), builder.add("Size", parts.pooled))
        shape = [-1] + [1] * (rank - 1)
        shape[layout.channel_axis] = parts.values[parts.target].shape[layout.channel_axis]
        over = builder.cast(cells, np.dtype(np.float32))
        return builder.add("Div", builder.float32(builder.reshape(slope, shape), dtype), over)
    slope = builder.float32(_cells_of(builder, slope, layout), dtype)
    if is_mean:
        slope = builder.reduce("ReduceMean", slope, layout.cell_axes, keepdims=True)
    if pointwise is not None:  # linear at each cell: the mean goes through it, and not every cell
        kernel = builder.float32(pointwise.input[1], dtype)
        slope = builder.add("ConvTranspose", slope, kernel, kernel_shape=[1, 1])
    return slope


def _cells_of(builder: Builder, tensor: str, layout: Layout) -> str:
    """Without the tokens that belong to no part of the picture."""
    return builder.cut(tensor, 1, layout.prefix) if layout.prefix else tensor


def _name_map(builder: Builder, cells: str, parts: Anatomy) -> None:
    """Lay tokens `[N, h·w]` out as rows, if they are no map yet, and give them the output's name."""
    if parts.layout.kind == "tokens" and (parts.has_fixed_size or parts.planes is None):
        cells = builder.reshape(cells, [0, *parts.cells])  # where the size is open, larger pictures are tried later
    elif parts.layout.kind == "tokens" and parts.planes is not None:
        planes, axis = parts.planes
        height_and_width = builder.constant(np.array([axis, axis + 1], dtype=np.int64))
        size = builder.add("Gather", builder.add("Shape", planes), height_and_width)
        every = builder.constant(np.array([-1], dtype=np.int64))
        cells = builder.add("Reshape", cells, builder.add("Concat", every, size, axis=0))
    builder.add("Identity", cells, name="saliency_map")


def _pointwise_convolution(view: GraphView, parts: Anatomy) -> onnx.NodeProto | None:
    """The 1×1 convolution that alone takes the target, as in SqueezeNet; None where something else does."""
    takers = [view.nodes[at] for at in view.between(parts.target, parts.logits) if parts.target in view.nodes[at].input]
    if len(takers) != 1 or takers[0].op_type != "Conv" or not view.is_weight(takers[0].input[1]):
        return None
    given = attributes(takers[0])
    is_plain = given.get("group", 1) == 1 and not any(given.get("pads", [])) and set(given.get("strides", [1])) == {1}
    return takers[0] if is_plain and parts.values[takers[0].input[1]].shape[2:] == (1, 1) else None
