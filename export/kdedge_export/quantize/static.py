"""Static quantization to int8 in QDQ form: the body in int8, the head and the map in float."""

import contextlib
import hashlib
import logging
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from kdedge_export.graph.deployed import TOP_CLASS
from kdedge_export.graph.onnx_graph import ExportedGraph
from kdedge_runtime.arrays import Pixels
from kdedge_runtime.errors import UsageError

__all__ = ["Recipe", "quantize"]

_OP_TYPES = ["Conv", "Gemm", "MatMul", "Add", "Mul", "Relu", "Clip", "MaxPool", "AveragePool", "Concat"]
"""What has an int8 kernel. Everything else would be a round trip through float with quantized ends."""


@dataclass(frozen=True)
class Recipe:
    """How to quantize, as a device profile gives it."""

    reduce_range: bool = True
    """7-bit weights. Without it, x86 cores that have no VNNI saturate (uint8 × int8 pairs are summed in 16 bits),
    and what was validated on one core is not what another computes. ARM and VNNI cores do not need it."""


class _Images(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, images: Pixels, explained: bool, progress: Callable[[int], None]) -> None:
        self._images = iter(images)
        self._explained = explained
        self._progress = progress

    def get_next(self) -> dict[str, np.ndarray[Any, Any]] | None:
        image = next(self._images, None)
        if image is None:
            return None
        self._progress(1)
        feed: dict[str, np.ndarray[Any, Any]] = {"image": image[None]}
        return feed | {"class_index": np.array([TOP_CLASS])} if self._explained else feed


def quantize(
    graph: ExportedGraph, images: Pixels, recipe: Recipe, progress: Callable[[int], None] = lambda _: None
) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """Quantize a graph's body: uint8 activations, int8 weights per channel.

    The head and the map stay float: they are less than one percent of the work, sharing the classifier's weight with
    the map crashes the quantizer, and int8 logits tie. Activations are uint8 because x86 and ARM kernels for them are
    the fastest.

    Args:
        graph: from `export_graph`.
        images: calibration images, uint8 RGB `[N, H, W, 3]` at the model's size, from the training set.
        recipe: the device's settings.
        progress: called with 1 after each calibration image.

    Returns:
        The quantized graph and what to note in its metadata.

    Raises:
        UsageError: there are no calibration images.
    """
    if len(images) == 0:
        raise UsageError("Quantization needs calibration images and got none. Name a folder of pictures: --data DIR.")
    with tempfile.TemporaryDirectory() as folder, _quiet():
        source, prepared, target = (Path(folder) / name for name in ("source.onnx", "prepared.onnx", "int8.onnx"))
        onnx.save_model(graph.model, source)
        # Shape inference only: the graph is optimised already, and node names must stay.
        quant_pre_process(source, prepared, skip_optimization=True, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            target,
            _Images(images, any(value.name == "class_index" for value in graph.model.graph.input), progress),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=_OP_TYPES,
            per_channel=True,
            reduce_range=recipe.reduce_range,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=_outside_the_body(graph),
            calibrate_method=CalibrationMethod.MinMax,
        )
        quantized = onnx.load(target)
    note = {
        "format": "qdq",
        "activations": "uint8",
        "weights": "int8",
        "per_channel": True,
        "calibration": "minmax",
        "calibration_sha256": hashlib.sha256(images.tobytes()).hexdigest(),
    }
    return quantized, note | asdict(recipe) | {"calibration_images": len(images)}


def _outside_the_body(graph: ExportedGraph) -> list[str]:
    """The head, and the casting and normalising in front of the first convolution."""
    nodes = graph.model.graph.node
    first = next(index for index, node in enumerate(nodes) if node.op_type == "Conv")
    return sorted(graph.head_nodes | {node.name for node in nodes[:first]})


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The quantizer logs advice about steps that have been taken already, to the root logger."""
    level = logging.getLogger().level
    logging.getLogger().setLevel(logging.ERROR)
    try:
        yield
    finally:
        logging.getLogger().setLevel(level)
