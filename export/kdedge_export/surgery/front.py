"""The front of a kdedge model: uint8 pixels in, what the graph was trained on out; and logits by that name."""

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper

from kdedge_export.surgery.anatomy import Anatomy
from kdedge_export.surgery.builder import Builder
from kdedge_export.surgery.port import Port
from kdedge_export.surgery.view import Array, subgraphs
from kdedge_runtime.arrays import Pixels
from kdedge_runtime.errors import ModelFileError, UsageError
from kdedge_runtime.metadata import ImageInput

__all__ = ["PixelInput", "add_logits", "image_input", "normalised", "put_front"]

IMAGE = "image"
LOGITS = "logits"


@dataclass(frozen=True)
class PixelInput:
    """How pixels become the input of somebody else's graph: `(pixel / 255 − mean) / std`."""

    mean: tuple[float, float, float]
    """Per channel, RGB, of pixel values scaled to [0, 1]."""
    std: tuple[float, float, float]
    bgr: bool = False
    """Whether the graph wants blue first, as Keras's `caffe` mode and OpenCV have it."""


def image_input(port: Port, pixels: PixelInput, side_px: int | None, name: str) -> ImageInput:
    """The input of the model that the front makes.

    Args:
        port: the graph's own input.
        pixels: how pixels become it.
        side_px: height and width, where the graph leaves them open.
        name: the file's, for messages.

    Raises:
        ModelFileError: the graph takes no colour pictures.
        UsageError: it leaves their size open and `side_px` does not say it.
    """
    if port.layout is None:
        shown = [size or "?" for size in port.shape]
        raise ModelFileError(
            f"{name} takes {port.name} {shown}, which has no axis of three colours. kdedge runs models of RGB "
            "pictures; leave --mean and --std out to add the map only."
        )
    height, width = (size or side_px for size in port.size)
    if height is None or width is None:
        raise UsageError(f"{name} leaves the size of its input open. Say which one it was trained with: --size 224.")
    return ImageInput(height, width, pixels.mean, pixels.std, name=IMAGE)


def normalised(images: Pixels, port: Port, pixels: PixelInput) -> Array:
    """What the graph itself wants of pictures: the front's arithmetic in numpy, to check it with.

    Args:
        images: uint8 RGB `[N, H, W, 3]`.
        port: the graph's own input.
        pixels: how pixels become it.

    Returns:
        `[N, H, W, 3]` or `[N, 3, H, W]`, in the input's layout and type.
    """
    x = (images / 255.0 - np.array(pixels.mean)) / np.array(pixels.std)
    x = x[..., ::-1] if pixels.bgr else x
    return np.ascontiguousarray(x if port.layout == "NHWC" else x.transpose(0, 3, 1, 2)).astype(port.dtype)


def put_front(model: onnx.ModelProto, builder: Builder, parts: Anatomy, pixels: PixelInput, spec: ImageInput) -> None:
    """Replace the graph's input by `image`, uint8 RGB `[N, H, W, 3]`, and give its logits as an output of that name.

    The graph's own outputs stay.

    Args:
        model: changed in place.
        builder: of its nodes.
        parts: what was found in it.
        pixels: how pixels become its input.
        spec: the new input (see `image_input`).

    Raises:
        ModelFileError: the graph has an output `logits` that is something else.
    """
    graph, port = model.graph, parts.port
    if port.name != IMAGE:
        _rename(graph, IMAGE, f"{IMAGE}/own")
    inner = f"{port.name}/normalised"
    _rename(graph, port.name, inner)
    front = _front(builder, port, pixels, inner)
    (own,) = (value for value in graph.input if value.name == port.name)
    batch = own.type.tensor_type.shape.dim[0]
    image = helper.make_tensor_value_info(IMAGE, TensorProto.UINT8, [None, spec.height, spec.width, 3])
    image.type.tensor_type.shape.dim[0].CopyFrom(batch)
    own.CopyFrom(image)
    nodes = [*front, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    add_logits(model, builder, parts)


def add_logits(model: onnx.ModelProto, builder: Builder, parts: Anatomy) -> None:
    """Give the logits as an output `logits`, float32 `[N, K]`, unless the graph has it already.

    Args:
        model: changed in place.
        builder: of its nodes.
        parts: what was found in it.

    Raises:
        ModelFileError: the graph has an output `logits` that is something else.
    """
    value = parts.values[parts.logits]
    is_there = parts.logits == LOGITS and value.ndim == 2 and value.dtype == np.float32
    if not is_there and LOGITS in {name for node in model.graph.node for name in node.output}:
        raise ModelFileError(
            f"The tensor {LOGITS} of this file is not its logits, which are {parts.logits}. Rename it, or leave "
            "--mean and --std out to add the map only."
        )
    if is_there and any(item.name == LOGITS for item in model.graph.output):
        return
    if not is_there:
        flat = parts.logits if value.ndim == 2 else builder.reshape(parts.logits, [-1, parts.classes])
        builder.add("Cast", flat, name=LOGITS, to=TensorProto.FLOAT)
    batch = parts.port.shape[0] or "batch"
    model.graph.output.append(helper.make_tensor_value_info(LOGITS, TensorProto.FLOAT, [batch, parts.classes]))


def _front(builder: Builder, port: Port, pixels: PixelInput, output: str) -> list[onnx.NodeProto]:
    """Order, cast, subtract, scale; in units of pixel values, so that normalising is one difference and one product.

    Ordering comes first: bytes are moved faster than floats, and constants over a whole channel broadcast fast.
    """
    before = len(builder.nodes)
    channels, shape, x = (1, (3, 1, 1), "") if port.layout == "NCHW" else (3, (3,), IMAGE)
    x = x or builder.add("Transpose", IMAGE, perm=[0, 3, 1, 2])
    mean, std = (np.array(values) * 255 for values in (pixels.mean, pixels.std))
    if pixels.bgr:
        x = builder.add("Gather", x, builder.constant(np.array([2, 1, 0], dtype=np.int64)), axis=channels)
        mean, std = mean[::-1], std[::-1]
    middle, scale = (builder.constant(v.reshape(shape).astype(np.float32)) for v in (mean, 1 / std))
    x = builder.add("Mul", builder.add("Sub", builder.cast(x, np.dtype(np.float32)), middle), scale)
    builder.add("Cast", x, name=output, to=helper.np_dtype_to_tensor_dtype(port.dtype))
    added = builder.nodes[before:]
    del builder.nodes[before:]
    return added


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Give a tensor another name wherever nodes make or take it, in subgraphs as well."""
    for node in graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]
        for inner in subgraphs(node):
            _rename(inner, old, new)
