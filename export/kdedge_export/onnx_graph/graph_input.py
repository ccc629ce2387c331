"""Image input of a graph, and random images for it."""

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
import onnx

from kdedge_export.onnx_graph.graph_index import FLOATS, Array, GraphIndex
from kdedge_runtime.errors import ModelFileError

__all__ = ["EXAMPLES", "Layout", "GraphInput", "make_example_feed", "find_image_input"]

Layout: TypeAlias = Literal["NCHW", "NHWC"]
FALLBACK_SIDE_PX = 224
"""Input size in pixels of the example run, if the graph leaves it dynamic and none is given."""
EXAMPLES = 2
"""Batch size of the example run; more than one, so that a batch is not mistaken for a constant."""


@dataclass(frozen=True)
class GraphInput:
    """Image input of a graph."""

    name: str
    dtype: np.dtype[np.generic]
    shape: tuple[int | None, ...]
    """Shape of the input, with None for dynamic dimensions."""

    @property
    def channels(self) -> int | None:
        """Number of channels: three for color, one for grayscale; None if no axis has that size."""
        return next((count for count in (3, 1) if count in (self.shape[1], self.shape[3])), None)

    @property
    def layout(self) -> Layout | None:
        """Position of the channel axis; None without channels."""
        if self.channels is None:
            return None
        return "NCHW" if self.shape[1] == self.channels else "NHWC"

    @property
    def size(self) -> tuple[int | None, int | None]:
        """Height and width in pixels; None if dynamic."""
        return (self.shape[1], self.shape[2]) if self.layout == "NHWC" else (self.shape[2], self.shape[3])

    @property
    def has_size(self) -> bool:
        """True if the graph fixes its input's height and width."""
        return None not in self.size

    def with_size(self, height: int, width: int) -> "GraphInput":
        """Return the input with a fixed height and width in px."""
        rows = 1 if self.layout == "NHWC" else 2
        return replace(self, shape=(*self.shape[:rows], height, width, *self.shape[rows + 2 :]))


def find_image_input(view: GraphIndex, name: str) -> GraphInput:
    """Return the single image input of a graph.

    Raises:
        ModelFileError: the graph has other inputs.
    """
    ports = []
    for value in view.model.graph.input:
        if value.name in view.inputs:
            tensor = value.type.tensor_type
            dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
            shape = tuple(dim.dim_value if dim.dim_value > 0 else None for dim in tensor.shape.dim)
            if len(shape) == 4 and shape[1] is None and (channels := _channels_taken(view, value.name)) is not None:
                shape = (shape[0], channels, *shape[2:])
            ports.append(GraphInput(value.name, dtype, shape))
    shown = ", ".join(f"{port.name} {port.dtype} {[size or '?' for size in port.shape]}" for port in ports)
    if len(ports) != 1 or len(ports[0].shape) != 4 or ports[0].dtype.name not in (*FLOATS, "uint8"):
        raise ModelFileError(
            f"{name} is not an image classifier: its inputs are {shown}. Expected one input, "
            f"float32, float16 or uint8, [N, C, H, W] or [N, H, W, C].{_constants(ports)}"
        )
    return ports[0]


def _constants(ports: list[GraphInput]) -> str:
    """Advise on inputs that may be constants, as lost by tf2onnx for Keras's `Normalization`."""
    if len(ports) < 2:
        return ""
    typed = f'model.graph.initializer.append(onnx.numpy_helper.from_array(VALUE, "{ports[-1].name}"))'
    return f" Inputs that are constants, as in Keras's Normalization, can be stored in the file, in Python: {typed}."


def _channels_taken(view: GraphIndex, name: str) -> int | None:
    """Return the channels a convolution takes from an image with a dynamic channel axis, as in Hugging Face files."""
    takers = [view.nodes[at] for at in view.consumers.get(name, [])]
    shapes = (view.shape(node.input[1]) for node in takers if node.op_type == "Conv" and node.input[0] == name)
    counts = [shape[1] for shape in shapes if shape is not None]
    return next((count for count in counts if count in (1, 3)), None)


def make_example_feed(port: GraphInput, side_px: int | None, images: int = EXAMPLES, seed: int = 0) -> dict[str, Array]:
    """Return random images for the graph, with structure coarse enough to pass through a deep network."""
    batch = port.shape[0] or images
    open_side = side_px or FALLBACK_SIDE_PX
    channels_last, channels = port.layout == "NHWC", port.channels or 3
    defaults = (batch, open_side, open_side, channels) if channels_last else (batch, channels, open_side, open_side)
    shape = [batch, *(size or default for size, default in zip(port.shape[1:], defaults[1:], strict=True))]
    rng = np.random.default_rng(seed)
    rows, columns = (1, 2) if channels_last else (2, 3)
    coarse = [min(size, 6) if axis in (rows, columns) else size for axis, size in enumerate(shape)]
    image = rng.normal(size=coarse)
    for axis in (rows, columns):
        image = image.take(np.arange(shape[axis]) * coarse[axis] // shape[axis], axis=axis)
    image = image + 0.3 * rng.normal(size=shape)
    if port.dtype == np.uint8:
        return {port.name: np.clip(128 + 50 * image, 0, 255).astype(np.uint8)}
    return {port.name: image.astype(port.dtype)}
