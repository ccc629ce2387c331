"""The nodes that give a saliency map: Grad-CAM where the tail can be differentiated, ReciproCAM where not."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
import onnx

from kdedge_export.errors import HeadNotSupported
from kdedge_export.layout import Layout
from kdedge_export.onnx_node import attributes
from kdedge_export.surgery.anatomy import Anatomy
from kdedge_export.surgery.builder import Builder
from kdedge_export.surgery.derivative import CannotDifferentiate, gradients
from kdedge_export.surgery.reciprocam import reciprocam
from kdedge_export.surgery.view import GraphView
from kdedge_runtime.errors import UsageError

__all__ = ["GRADCAM", "RECIPROCAM", "Method", "Saliency", "add_saliency", "as_method"]

Method: TypeAlias = Literal["gradcam", "reciprocam"]
GRADCAM: Method = "gradcam"
RECIPROCAM: Method = "reciprocam"
TOP_CLASS = -1
"""The class index that stands for each image's top class."""


def as_method(name: str) -> Method:
    """The method of a name.

    Raises:
        UsageError: an `.onnx` file cannot be explained by it.
    """
    if name == GRADCAM:
        return GRADCAM
    if name == RECIPROCAM:
        return RECIPROCAM
    raise UsageError(f"An .onnx file is explained by {GRADCAM} or {RECIPROCAM}, not by {name}. Choose one of these.")


@dataclass(frozen=True)
class Saliency:
    """What was added to a graph."""

    method: Method
    parts: Anatomy
    """Of the graph, with the features that the map looks at."""
    features: str
    """The tensor that the map is made of: float32, of the cells alone."""
    gradient: str | None
    """The explained logit's gradient, float32, which broadcasts against the features; None for ReciproCAM.

    Grad-CAM's is the mean over the cells.
    """
    why_not_gradcam: str | None = None
    """The operator that has no derivative here, where ReciproCAM is the fallback."""


def add_saliency(
    builder: Builder, view: GraphView, find: Callable[[bool], Anatomy], method: Method | None = None
) -> Saliency:
    """Add `class_index` (int64 `[1]`, -1: the top class), `explained_class` (int64 `[N]`) and `saliency_map`.

    The map is float32 `[N, h, w]`, raw and signed. `gradcam` is Grad-CAM before its ReLU (Selvaraju et al., ICCV 2017,
    eq. 1 and 2). `reciprocam` is what each cell alone adds to the logit: the tail is run on the features of one cell at
    a time (Byun and Lee, CVPR workshops 2024, eq. 1), and the logit of no features at all is subtracted, so that the
    sign means something. For pooling and one dense layer both are the same map. Tokens that belong to no part of the
    picture, such as a class token, are in every run (Byun and Lee, 2023, arXiv:2310.02588).

    Args:
        builder: takes the nodes.
        view: the graph.
        find: gives the parts of the graph; with True, so that all of the answer goes through the features.
        method: None takes Grad-CAM where every operator of the tail has a derivative here.

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


def _added(builder: Builder, view: GraphView, find: Callable[[bool], Anatomy], method: Method | None) -> Saliency:
    if method == RECIPROCAM:
        return _by_reciprocam(builder, view, find(True))
    parts, kept = find(False), len(builder.nodes)
    try:
        return Saliency(GRADCAM, parts, *_gradcam(builder, view, parts, _explained_class(builder, parts)))
    except CannotDifferentiate as error:
        del builder.nodes[kept:]  # the half that was written
        why = f"Grad-CAM needs the derivative of {error}, which kdedge does not have."
        if method == GRADCAM:
            raise HeadNotSupported(f"{why} Leave --method out: ReciproCAM needs none.") from error
        try:
            return _by_reciprocam(builder, view, parts if parts.is_cut else find(True), str(error))
        except HeadNotSupported as refused:
            raise HeadNotSupported(f"{why} {refused}") from refused


def _by_reciprocam(builder: Builder, view: GraphView, parts: Anatomy, why: str | None = None) -> Saliency:
    one_hot = _one_hot_of(builder, parts, _explained_class(builder, parts))
    reciprocam(builder, view, parts, one_hot)
    return Saliency(RECIPROCAM, parts, parts.target, None, why)


def _explained_class(builder: Builder, parts: Anatomy) -> str:
    logits = _two_axes(builder, parts, parts.logits)
    top = builder.add("ArgMax", logits, axis=1, keepdims=0)
    is_open = builder.add("Less", "class_index", builder.constant(np.array(0, dtype=np.int64)))
    return builder.add("Where", is_open, top, "class_index", name="explained_class")


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


def _gradcam(builder: Builder, view: GraphView, parts: Anatomy, explained: str) -> tuple[str, str]:
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
        weights = builder.add("Div", builder.float32(builder.reshape(slope, shape), dtype), over)
    else:
        slope = builder.float32(_cells_of(builder, slope, layout), dtype)
        weights = builder.reduce("ReduceMean", slope, layout.cell_axes, keepdims=True)
        if pointwise is not None:  # linear at each cell: the mean goes through it, and not every cell
            kernel = builder.float32(pointwise.input[1], dtype)
            weights = builder.add("ConvTranspose", weights, kernel, kernel_shape=[1, 1])
    features = builder.float32(_cells_of(builder, parts.target, layout), dtype)
    weighted = builder.add("Mul", features, weights)
    _name_map(builder, builder.reduce("ReduceSum", weighted, [layout.channel_axis], keepdims=False), parts)
    return features, weights


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
