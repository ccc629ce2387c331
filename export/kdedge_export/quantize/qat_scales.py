"""What an int8 file rounds, read from the file itself."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from kdedge_export.onnx_graph.editor import GraphEditor
from kdedge_export.quantize.calibration_ranges import values_of
from kdedge_export.quantize.recipe import Recipe
from kdedge_export.quantize.static import Quantized
from kdedge_export.torch_export.exporter import ExportedGraph
from kdedge_runtime.util.arrays import Pixels

__all__ = ["Rounded", "Steps", "rounded_by"]


@dataclass(frozen=True)
class Steps:
    """The values `scale · (q - zero)` of the whole numbers `q` from `least` to `most`."""

    scale: float
    zero: int
    least: int
    most: int


@dataclass(frozen=True)
class Rounded:
    """All that an int8 file rounds, and how its tensors can be recognised elsewhere."""

    layers: tuple[str, ...]
    """Paths of the modules whose weights are rounded, each output channel to whole multiples of a step of its own."""
    largest: int
    """So many steps are a channel's largest weight."""
    steps: Mapping[str, Steps]
    """Of every rounded tensor that the float graph has too, by its name there."""
    picture: Pixels
    """uint8 RGB `[1, H, W, 3]`."""
    values: Mapping[str, NDArray[np.float32]]
    """What these tensors are for the picture in the float graph, by the same names."""


def rounded_by(quantized: Quantized, graph: ExportedGraph, recipe: Recipe, picture: Pixels) -> Rounded:
    """Read what is rounded, and ask the float graph for these tensors.

    Tensors that only the int8 graph has are left out: they are the same bytes as others, or come from a finer product.

    Args:
        quantized: the int8 file.
        graph: the float graph that it was made from.
        recipe: how.
        picture: uint8 RGB `[1, H, W, 3]`.
    """
    known = {name for node in graph.model.graph.node for name in node.output}
    found = {name.removesuffix("_flat"): steps for name, steps in _steps(quantized.model).items()}  # `flatten_pooled`
    steps = {name: found[name] for name in found if name in known}
    (values,) = values_of(graph.model, list(steps), picture, lambda _images: None)
    return Rounded(quantized.int8_layers, recipe.largest, steps, picture, values)


def _steps(model: onnx.ModelProto) -> dict[str, Steps]:
    """Of every tensor that is brought to bytes in steps that are the same for all pictures."""
    graph, found = GraphEditor(model), dict[str, Steps]()
    for node in model.graph.node:
        if node.op_type != "QuantizeLinear":
            continue
        scale, zero = graph.constant(node.input[1]), graph.constant(node.input[2])
        if scale is not None and zero is not None and scale.size == 1:
            bounds = np.iinfo(zero.dtype)
            found[node.input[0]] = Steps(float(scale), int(zero), int(bounds.min), int(bounds.max))
    return found
