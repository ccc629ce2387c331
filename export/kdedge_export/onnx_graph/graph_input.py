"""The image input of a graph, and random pictures for it."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import onnx

from kdedge_export.onnx_graph.graph_index import FLOATS, Array, GraphView
from kdedge_runtime.errors import ModelFileError

__all__ = ["Layout", "Port", "example_feed", "image_port"]

Layout: TypeAlias = Literal["NCHW", "NHWC"]
FALLBACK_SIDE_PX = 224
"""Of the example run, where the graph leaves its size open and nobody says."""
EXAMPLES = 2
"""Images of the example run: more than one, so that a batch is not taken for a constant."""


@dataclass(frozen=True)
class Port:
    """The image input of a graph."""

    name: str
    dtype: np.dtype[np.generic]
    shape: tuple[int | None, ...]
    """None where the graph leaves a dimension open."""

    @property
    def channels(self) -> int | None:
        """Three of color or one of grey; None where no axis has as many."""
        return next((count for count in (3, 1) if count in (self.shape[1], self.shape[3])), None)

    @property
    def layout(self) -> Layout | None:
        """The place of the channels; None where there are none."""
        if self.channels is None:
            return None
        return "NCHW" if self.shape[1] == self.channels else "NHWC"

    @property
    def size(self) -> tuple[int | None, int | None]:
        """Height and width in px, None where the graph leaves them open."""
        return (self.shape[1], self.shape[2]) if self.layout == "NHWC" else (self.shape[2], self.shape[3])

    @property
    def has_size(self) -> bool:
        """Whether the graph fixes its input's height and width."""
        return None not in self.size


def image_port(view: GraphView, name: str) -> Port:
    """The one image that a graph takes.

    Raises:
        ModelFileError: it takes something else.
    """
    ports = []
    for value in view.model.graph.input:
        if value.name in view.inputs:
            tensor = value.type.tensor_type
            dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
            shape = tuple(dim.dim_value if dim.dim_value > 0 else None for dim in tensor.shape.dim)
            if len(shape) == 4 and shape[1] is None and (channels := _channels_taken(view, value.name)) is not None:
                shape = (shape[0], channels, *shape[2:])
            ports.append(Port(value.name, dtype, shape))
    shown = ", ".join(f"{port.name} {port.dtype} {[size or '?' for size in port.shape]}" for port in ports)
    if len(ports) != 1 or len(ports[0].shape) != 4 or ports[0].dtype.name not in (*FLOATS, "uint8"):
        raise ModelFileError(
            f"{name} is no image classifier that can be explained: its inputs are {shown}. Expected one input, "
            f"float32, float16 or uint8, [N, C, H, W] or [N, H, W, C].{_constants(ports)}"
        )
    return ports[0]


def _constants(ports: list[Port]) -> str:
    """What to do about inputs that may be constants: tf2onnx loses those of Keras's `Normalization` so."""
    if len(ports) < 2:
        return ""
    typed = f'model.graph.initializer.append(onnx.numpy_helper.from_array(VALUE, "{ports[-1].name}"))'
    return f" Inputs that are constants, as of Keras's Normalization, can be stored with it, in Python: {typed}."


def _channels_taken(view: GraphView, name: str) -> int | None:
    """Return how many channels a convolution takes of an image that leaves it open, as in HuggingFace's files."""
    takers = [view.nodes[at] for at in view.takers.get(name, [])]
    weights = (view.value(node.input[1]) for node in takers if node.op_type == "Conv" and node.input[0] == name)
    counts = [int(weight.shape[1]) for weight in weights if weight is not None]
    return next((count for count in counts if count in (1, 3)), None)


def example_feed(port: Port, side_px: int | None, images: int = EXAMPLES, seed: int = 0) -> dict[str, Array]:
    """Random pictures in the form that the graph wants, of structure coarse enough to pass through a deep network."""
    batch = port.shape[0] or images
    open_side = side_px or FALLBACK_SIDE_PX
    channels_last, channels = port.layout == "NHWC", port.channels or 3
    defaults = (batch, open_side, open_side, channels) if channels_last else (batch, channels, open_side, open_side)
    shape = [batch, *(size or default for size, default in zip(port.shape[1:], defaults[1:], strict=True))]
    rng = np.random.default_rng(seed)
    rows, columns = (1, 2) if channels_last else (2, 3)
    coarse = [min(size, 6) if axis in (rows, columns) else size for axis, size in enumerate(shape)]
    picture = rng.normal(size=coarse)
    for axis in (rows, columns):
        picture = picture.take(np.arange(shape[axis]) * coarse[axis] // shape[axis], axis=axis)
    picture = picture + 0.3 * rng.normal(size=shape)
    if port.dtype == np.uint8:
        return {port.name: np.clip(128 + 50 * picture, 0, 255).astype(np.uint8)}
    return {port.name: picture.astype(port.dtype)}
