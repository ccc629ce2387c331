"""Preprocessing in the graph: uint8 pixels in, normalized input out; and logits under that name.

Graphs with grayscale input receive the luma, `0.299 R + 0.587 G + 0.114 B` (ITU-R BT.601), as in Pillow and OpenCV.
"""

from dataclasses import dataclass, replace

import numpy as np
import onnx
from onnx import TensorProto, helper

from kdedge_export.onnx_graph.builder import NodeBuilder
from kdedge_export.onnx_graph.graph_index import Array, subgraphs
from kdedge_export.onnx_graph.graph_input import GraphInput
from kdedge_export.onnx_graph.node_attributes import attributes
from kdedge_export.onnx_import.classifier_graph import ClassifierGraph
from kdedge_runtime.errors import ModelFileError, UsageError
from kdedge_runtime.modalities.image import ImageInput, Resize
from kdedge_runtime.util.arrays import Pixels

__all__ = ["Geometry", "PixelInput", "add_logits", "image_input", "is_normalized_input", "prepend_preprocessing"]

IMAGE = "image"
LOGITS = "logits"
LUMA = np.array([0.299, 0.587, 0.114])


@dataclass(frozen=True)
class PixelInput:
    """Conversion from pixels to a graph's input: `(pixel / 255 − mean) / std`."""

    mean: tuple[float, float, float]
    """Mean per channel, RGB, of pixel values scaled to [0, 1]."""
    std: tuple[float, float, float]
    bgr: bool = False
    """True if the graph expects BGR channel order, as in Keras's `caffe` mode and OpenCV."""


@dataclass(frozen=True)
class Geometry:
    """Resizing of images to the size of the graph's input."""

    resize: Resize = "crop"
    """Resizing mode, see `kdedge_runtime.modalities.image.ImageInput`."""
    crop_fraction: float = 1.0
    """Fraction of the resized shorter side that a crop keeps, in (0, 1]."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UsageError: the fraction is out of range, or nothing is cropped.
        """
        if not 0 < self.crop_fraction <= 1:
            raise UsageError(
                f"--crop-fraction {self.crop_fraction:g} is out of range. Expected a fraction of the image above 0, "
                "at most 1."
            )
        if self.crop_fraction != 1 and self.resize != "crop":
            raise UsageError(f"--crop-fraction needs --resize crop. Remove it, or --resize {self.resize}.")


def image_input(port: GraphInput, pixels: PixelInput, geometry: Geometry, side_px: int | None, name: str) -> ImageInput:
    """Describe the input of the model with added preprocessing.

    Args:
        port: the graph's own input.
        pixels: conversion from pixels to it.
        geometry: resizing of images to its size.
        side_px: input size in pixels, if the graph leaves it dynamic.
        name: file name for messages.

    Raises:
        ModelFileError: the graph takes neither color nor grayscale images.
        UsageError: the size is dynamic and `side_px` is None, or `pixels` has color values for a grayscale input.
    """
    if port.layout is None:
        shown = [size or "?" for size in port.shape]
        raise ModelFileError(
            f"{name} takes {port.name} {shown}, which has no axis of three color channels or one grayscale channel. "
            "kdedge runs image models; remove --mean and --std to add only the map."
        )
    if port.channels == 1 and (pixels.bgr or len({*pixels.mean}) > 1 or len({*pixels.std}) > 1):
        raise UsageError(
            f"{name} takes grayscale images, which have one channel. Give one number each, without --bgr: --mean 0.5 "
            "--std 0.5."
        )
    height, width = (size or side_px for size in port.size)
    if height is None or width is None:
        raise UsageError(f"{name} has a dynamic input size. Give the size it was trained with: --size 224.")
    resize, crop_fraction = geometry.resize, geometry.crop_fraction
    return ImageInput(height, width, pixels.mean, pixels.std, resize=resize, crop_fraction=crop_fraction, name=IMAGE)


def is_normalized_input(images: Pixels, port: GraphInput, pixels: PixelInput) -> Array:
    """Preprocess images in numpy, as a reference for the preprocessing in the graph.

    Args:
        images: uint8 RGB `[N, H, W, 3]`.
        port: the graph's own input.
        pixels: conversion from pixels to it.

    Returns:
        `[N, H, W, C]` or `[N, C, H, W]` with three color channels or one grayscale channel, in the input's layout and
            type.
    """
    x = (images / 255.0 - np.array(pixels.mean)) / np.array(pixels.std)
    x = (x * LUMA).sum(axis=-1, keepdims=True) if port.channels == 1 else x
    x = x[..., ::-1] if pixels.bgr else x
    return np.ascontiguousarray(x if port.layout == "NHWC" else x.transpose(0, 3, 1, 2)).astype(port.dtype)


def prepend_preprocessing(
    model: onnx.ModelProto, builder: NodeBuilder, parts: ClassifierGraph, pixels: PixelInput, spec: ImageInput
) -> None:
    """Replace the graph's input by `image`, uint8 RGB `[N, H, W, 3]`, and add its logits as an output of that name.

    The graph's own outputs are kept.

    Args:
        model: modified in place.
        builder: builder of its nodes.
        parts: analysis of the graph.
        pixels: conversion from pixels to its input.
        spec: the new input (see `image_input`).

    Raises:
        ModelFileError: the graph has an unrelated output `logits`.
    """
    graph, port = model.graph, parts.port
    if port.name != IMAGE:
        _rename(graph, IMAGE, f"{IMAGE}/own")
    inner = f"{port.name}/normalized"
    _rename(graph, port.name, inner)
    front = _front(builder, _first_layout(graph, port, inner), pixels, spec, inner)
    (own,) = (value for value in graph.input if value.name == port.name)
    batch = own.type.tensor_type.shape.dim[0]
    image = helper.make_tensor_value_info(IMAGE, TensorProto.UINT8, [None, spec.height, spec.width, 3])
    image.type.tensor_type.shape.dim[0].CopyFrom(batch)
    own.CopyFrom(image)
    nodes = [*front, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    add_logits(model, builder, parts)


def add_logits(model: onnx.ModelProto, builder: NodeBuilder, parts: ClassifierGraph) -> None:
    """Add the logits as an output `logits`, float32 `[N, K]`, unless the graph already has it.

    Args:
        model: modified in place.
        builder: builder of its nodes.
        parts: analysis of the graph.

    Raises:
        ModelFileError: the graph has an unrelated output `logits`.
    """
    value = parts.values[parts.logits]
    is_there = parts.logits == LOGITS and value.ndim == 2 and value.dtype == np.float32
    if not is_there and any(item.name == LOGITS for item in model.graph.output):
        raise ModelFileError(
            f"The output {LOGITS} of this file is not the logits to explain, which are {parts.logits}. Rename it, or "
            "remove --mean and --std to add only the map."
        )
    if is_there and any(item.name == LOGITS for item in model.graph.output):
        return
    if not is_there:
        _rename(model.graph, LOGITS, f"{LOGITS}/own")  # an inner tensor
        own = f"{LOGITS}/own" if parts.logits == LOGITS else parts.logits
        flat = own if value.ndim == 2 else builder.reshape(own, [-1, parts.classes])
        builder.add("Cast", flat, name=LOGITS, to=TensorProto.FLOAT)
    batch = parts.port.shape[0] or "batch"
    model.graph.output.append(helper.make_tensor_value_info(LOGITS, TensorProto.FLOAT, [batch, parts.classes]))


def _first_layout(graph: onnx.GraphProto, port: GraphInput, inner: str) -> GraphInput:
    """Return the input layout at its first use: a channels-last input may be transposed at once, as tf2onnx writes it.

    The graph's own transposes are removed, since transposing bytes is faster than transposing floats.
    """
    takers = [node for node in graph.node if inner in node.input]
    captured = any(inner in item.input for node in graph.node for part in subgraphs(node) for item in part.node)
    turns = [node.op_type == "Transpose" and list(attributes(node).get("perm", [])) == [0, 3, 1, 2] for node in takers]
    if port.layout != "NHWC" or captured or not turns or not all(turns):
        return port
    for node in takers:
        node.op_type = "Identity"
        del node.attribute[:]
    batch, height, width, channels = port.shape
    return replace(port, shape=(batch, channels, height, width))


def _front(
    builder: NodeBuilder, port: GraphInput, pixels: PixelInput, spec: ImageInput, output: str
) -> list[onnx.NodeProto]:
    """Build the preprocessing: reorder, cast, subtract, scale; on pixel values, so that normalization is two steps.

    Reordering comes first, since bytes are moved faster than floats. Operations without effect are omitted.
    """
    before = len(builder.nodes)
    x = _colors(builder, port, pixels) if port.channels == 3 else _luma(builder, port, spec)
    mean, std = (np.array(values) * 255 for values in (pixels.mean, pixels.std))
    if pixels.bgr:
        mean, std = mean[::-1], std[::-1]
    middle, scale = mean.astype(np.float32), (1 / std).astype(np.float32)
    if middle.any():
        x = builder.add("Sub", x, builder.constant(_broadcast(middle, port, spec)))
    if (scale != 1).any():
        x = builder.add("Mul", x, builder.constant(_broadcast(scale, port, spec)))
    if port.dtype != np.float32:
        x = builder.cast(x, port.dtype)
    added = builder.nodes[before:]
    added[-1].output[:] = [output]
    del builder.nodes[before:]
    return added


def _colors(builder: NodeBuilder, port: GraphInput, pixels: PixelInput) -> str:
    """Return pixel values in the graph's axis and channel order, float32."""
    channels, x = (1, builder.add("Transpose", IMAGE, perm=[0, 3, 1, 2])) if port.layout == "NCHW" else (3, IMAGE)
    if pixels.bgr:
        x = builder.add("Gather", x, builder.constant(np.array([2, 1, 0], dtype=np.int64)), axis=channels)
    return builder.cast(x, np.dtype(np.float32))


def _luma(builder: NodeBuilder, port: GraphInput, spec: ImageInput) -> str:
    """Return the luma of the pixels in the graph's axis order, float32."""
    weights = builder.constant(LUMA.astype(np.float32)[:, None])
    gray = builder.add("MatMul", builder.cast(IMAGE, np.dtype(np.float32)), weights)
    return gray if port.layout == "NHWC" else builder.reshape(gray, [-1, 1, spec.height, spec.width])


def _broadcast(values: Array, port: GraphInput, spec: ImageInput) -> Array:
    """Return a per-channel constant in the form that is applied fastest.

    Equal values become a scalar. With channels last, three values are tiled over a row of pixels, since onnxruntime
    broadcasts along the last axis, and three values at a time cost as much as a small network.
    """
    if len({*values.tolist()}) == 1:
        return np.asarray(values[0])
    return values[:, None, None] if port.layout == "NCHW" else np.tile(values, (spec.width, 1))


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Rename a tensor wherever nodes produce or read it, including subgraphs."""
    for node in graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]
        for inner in subgraphs(node):
            _rename(inner, old, new)
