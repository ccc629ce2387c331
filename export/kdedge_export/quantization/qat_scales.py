"""Quantization scales of an int8 file, read from the file itself, for QAT."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from kdedge_export.onnx_graph.editor import GraphEditor
from kdedge_export.quantization.calibration_ranges import values_of
from kdedge_export.quantization.recipe import QuantizationRecipe
from kdedge_export.quantization.static import Quantized
from kdedge_export.torch_export.exporter import ExportedGraph
from kdedge_runtime.util.arrays import Pixels

__all__ = ["QuantizedTensors", "QuantizationSteps", "read_steps"]


@dataclass(frozen=True)
class QuantizationSteps:
    """Quantization grid: the values `scale · (q - zero)` for integers `q` from `least` to `most`."""

    scale: float
    zero: int
    least: int
    most: int


@dataclass(frozen=True)
class QuantizedTensors:
    """All quantized weights and activations of an int8 file, with values to identify its tensors."""

    layers: tuple[str, ...]
    """Paths of the modules with quantized weights; each output channel has its own scale."""
    largest: int
    """Largest quantized weight of a channel."""
    steps: Mapping[str, QuantizationSteps]
    """Quantization grid of every quantized tensor that exists in the fp32 graph, by its name there."""
    image: Pixels
    """Example image, uint8 RGB `[1, H, W, 3]`."""
    values: Mapping[str, NDArray[np.float32]]
    """Values of these tensors for the image in the fp32 graph, by the same names."""


def read_steps(
    quantized: Quantized, graph: ExportedGraph, recipe: QuantizationRecipe, image: Pixels
) -> QuantizedTensors:
    """Read the quantization grids, and the values of these tensors in the fp32 graph.

    Tensors that exist only in the int8 graph are left out: they equal the bytes of others, or are results of a finer
    product.

    Args:
        quantized: the int8 file.
        graph: the fp32 graph it was made from.
        recipe: quantization recipe.
        image: example image, uint8 RGB `[1, H, W, 3]`.
    """
    known = {name for node in graph.model.graph.node for name in node.output}
    found = {name.removesuffix("_flat"): steps for name, steps in _steps(quantized.model).items()}
    steps = {name: found[name] for name in found if name in known}
    (values,) = values_of(graph.model, list(steps), image, lambda _images: None)
    return QuantizedTensors(quantized.int8_layers, recipe.largest, steps, image, values)


def _steps(model: onnx.ModelProto) -> dict[str, QuantizationSteps]:
    """Return the grid of every tensor quantized with a fixed scale."""
    graph, found = GraphEditor(model), dict[str, QuantizationSteps]()
    for node in model.graph.node:
        if node.op_type != "QuantizeLinear":
            continue
        scale, zero = graph.constant(node.input[1]), graph.constant(node.input[2])
        if scale is not None and zero is not None and scale.size == 1:
            bounds = np.iinfo(zero.dtype)
            found[node.input[0]] = QuantizationSteps(float(scale), int(zero), int(bounds.min), int(bounds.max))
    return found
