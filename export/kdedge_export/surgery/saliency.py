"""The nodes that give a saliency map: Grad-CAM where the tail can be differentiated, ReciproCAM where not."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import onnx

from kdedge_export.errors import HeadNotSupported
from kdedge_export.surgery.anatomy import Anatomy
from kdedge_export.surgery.builder import PREFIX, Builder
from kdedge_export.surgery.gradient import gradients
from kdedge_export.surgery.step import CannotDifferentiate
from kdedge_export.surgery.view import GraphView, attributes
from kdedge_runtime.errors import UsageError

__all__ = ["GRADCAM", "RECIPROCAM", "Method", "Saliency", "add_saliency", "as_method", "one_hot_of"]

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
    weights: str | None
    """Of Grad-CAM: the tensor with the weight of each channel, which broadcasts against the target."""
    why_not_gradcam: str | None = None
    """The operator that has no derivative here, where ReciproCAM is the fallback."""


def add_saliency(builder: Builder, view: GraphView, parts: Anatomy, method: Method | None = None) -> Saliency:
    """Add `class_index` (int64 `[1]`, -1: the top class), `explained_class` (int64 `[N]`) and `saliency_map`.

    The map is float32 `[N, h, w]`, raw and signed. `gradcam` is Grad-CAM before its ReLU (Selvaraju et al., ICCV 2017,
    eq. 1 and 2). `reciprocam` is what each cell alone adds to the logit: the tail is run on the features of one cell at
    a time (Byun and Lee, CVPR workshops 2024, eq. 1), and the logit of no features at all is subtracted, so that the
    sign means something. For pooling and one dense layer both are the same map.

    Args:
        builder: takes the nodes.
        view: the graph.
        parts: of the graph.
        method: None takes Grad-CAM where every operator of the tail has a derivative here.

    Raises:
        HeadNotSupported: the method cannot explain this tail.
    """
    explained = _explained_class(builder, view, parts)
    kept = len(builder.nodes)
    why = None
    if method != RECIPROCAM:
        try:
            return Saliency(GRADCAM, _gradcam(builder, view, parts, explained))
        except CannotDifferentiate as error:
            why = str(error)
            del builder.nodes[kept:]  # the half that was written
            if method == GRADCAM:
                raise HeadNotSupported(
                    f"Grad-CAM needs the derivative of {why}, which kdedge does not have. "
                    "Leave --method out: ReciproCAM needs none."
                ) from error
    _reciprocam(builder, view, parts, explained)
    return Saliency(RECIPROCAM, None, why)


def _explained_class(builder: Builder, view: GraphView, parts: Anatomy) -> str:
    logits = _two_axes(builder, parts, parts.logits)
    top = builder.add("ArgMax", logits, axis=1, keepdims=0)
    is_open = builder.add("Less", "class_index", builder.constant(np.array(0, dtype=np.int64)))
    return builder.add("Where", is_open, top, "class_index", name="explained_class")


def _float32(builder: Builder, tensor: str, dtype: np.dtype[np.generic]) -> str:
    return tensor if dtype == np.float32 else builder.cast(tensor, np.dtype(np.float32))


def _two_axes(builder: Builder, parts: Anatomy, logits: str) -> str:
    return logits if parts.values[parts.logits].ndim == 2 else builder.reshape(logits, [-1, parts.classes])


def one_hot_of(builder: Builder, parts: Anatomy, explained: str) -> str:
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


def _gradcam(builder: Builder, view: GraphView, parts: Anatomy, explained: str) -> str:
    channels, spatial = (1, (2, 3)) if parts.layout == "NCHW" else (3, (1, 2))
    dtype, count = parts.values[parts.target].dtype, parts.values[parts.target].shape[channels]
    pointwise = _pointwise_convolution(view, parts)
    source = parts.pooled or (parts.target if pointwise is None else pointwise.output[0])
    one_hot = one_hot_of(builder, parts, explained)
    slope = gradients(builder, view, parts.values, parts.logits, explained, one_hot, source)[source]
    if parts.pooled is not None:  # the gradient of a mean is the same at every cell: one h·w-th of the mean's own
        cells = builder.add("Div", builder.add("Size", parts.target), builder.add("Size", parts.pooled))
        broad = builder.reshape(slope, [-1, count, 1, 1] if parts.layout == "NCHW" else [-1, 1, 1, count])
        over = builder.cast(cells, np.dtype(np.float32))
        weights = builder.add("Div", _float32(builder, broad, dtype), over)
    else:
        weights = builder.reduce("ReduceMean", _float32(builder, slope, dtype), spatial, keepdims=True)
        if pointwise is not None:  # linear at each cell: the mean goes through it, and not every cell
            kernel = _float32(builder, pointwise.input[1], dtype)
            weights = builder.add("ConvTranspose", weights, kernel, kernel_shape=[1, 1])
    weighted = builder.add("Mul", _float32(builder, parts.target, dtype), weights)
    summed = builder.reduce("ReduceSum", weighted, [channels], keepdims=False)
    builder.add("Identity", summed, name="saliency_map")
    return weights


def _pointwise_convolution(view: GraphView, parts: Anatomy) -> onnx.NodeProto | None:
    """The 1×1 convolution that alone takes the target, as in SqueezeNet; None where something else does."""
    takers = [view.nodes[at] for at in view.between(parts.target, parts.logits) if parts.target in view.nodes[at].input]
    if len(takers) != 1 or takers[0].op_type != "Conv" or not view.is_weight(takers[0].input[1]):
        return None
    given = attributes(takers[0])
    is_plain = given.get("group", 1) == 1 and not any(given.get("pads", [])) and set(given.get("strides", [1])) == {1}
    return takers[0] if is_plain and parts.values[takers[0].input[1]].shape[2:] == (1, 1) else None


def _reciprocam(builder: Builder, view: GraphView, parts: Anatomy, explained: str) -> None:
    if not parts.is_cut:
        raise HeadNotSupported(
            f"ReciproCAM runs what comes after {parts.target} again, but the answer depends on the image in other ways "
            "too. Name a tensor that all of it goes through, or leave --target-layer out."
        )
    if not parts.has_fixed_size:
        raise HeadNotSupported(
            "ReciproCAM needs to know the size of the map, which this graph leaves open. Export it for one size."
        )
    value = parts.values[parts.target]
    height, width = parts.cells
    runs = height * width + 1  # each cell alone, and none of them
    masks = np.zeros((runs, height * width), dtype=value.dtype)
    np.fill_diagonal(masks, 1)
    inner = (1, height, width) if parts.layout == "NCHW" else (height, width, 1)
    one_image = [-1, 1, *value.shape[1:]]
    one_cell_each = builder.constant(masks.reshape(1, runs, *inner))
    masked = builder.add("Mul", builder.reshape(parts.target, one_image), one_cell_each)
    names = {parts.target: builder.reshape(masked, [-1, *value.shape[1:]])}
    _run_again(builder, view, parts, names, runs)
    dtype = parts.values[parts.logits].dtype
    by_cell = builder.reshape(_float32(builder, names[parts.logits], dtype), [-1, runs, parts.classes])
    one_hot = _float32(builder, one_hot_of(builder, parts, explained), dtype)
    of_class = builder.add("MatMul", by_cell, builder.reshape(one_hot, [-1, parts.classes, 1]))
    alone, none = np.arange(runs - 1, dtype=np.int64), np.array([runs - 1], dtype=np.int64)
    added = builder.add(
        "Sub",
        builder.add("Gather", of_class, builder.constant(alone), axis=1),
        builder.add("Gather", of_class, builder.constant(none), axis=1),
    )
    builder.add("Identity", builder.reshape(added, [-1, height, width]), name="saliency_map")


def _run_again(builder: Builder, view: GraphView, parts: Anatomy, names: dict[str, str], runs: int) -> None:
    """Copy the tail onto other tensors; `names` maps the graph's to the copy's and grows."""
    images = len(parts.values[parts.target])
    for at in view.between(parts.target, parts.logits):
        node = view.nodes[at]
        inputs = [names.get(name, name) for name in node.input]
        outputs = [f"{PREFIX}again/{name}" if name else "" for name in node.output]
        shape = parts.values[node.output[0]].shape
        if node.op_type == "Reshape" and shape[:1] == (images,):
            # Its shape may hold the batch, as a number or computed from another tensor.
            inputs[1] = builder.constant(np.array([-1, *shape[1:]], dtype=np.int64))
        builder.copy(node, inputs, outputs)
        names.update(zip(node.output, outputs, strict=True))
