"""Quantization of a model file to an int8 file next to it."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx
from onnx import version_converter

from kdedge_export.onnx_graph.head_nodes import downstream, last_layer_and_map
from kdedge_export.onnx_graph.model_file import save_model
from kdedge_export.quantization.mixed_precision import FidelityGoal, Tradeoff
from kdedge_export.quantization.recipe import QuantizationRecipe
from kdedge_export.quantization.static import quantize as quantize_graph
from kdedge_export.torch_export.exporter import ExportedGraph
from kdedge_runtime import Model
from kdedge_runtime.errors import ModelFileError, UsageError
from kdedge_runtime.onnx_session import first_line
from kdedge_runtime.util.arrays import Integers, Pixels
from kdedge_runtime.util.progress import ProgressCallback, no_progress

__all__ = ["QuantizedFile", "quantize"]

_MIN_OPSET = 13
"""First opset with per-channel scales in DequantizeLinear."""


@dataclass(frozen=True)
class QuantizedFile:
    """Result of quantizing a model file."""

    path: Path | None
    """Int8 file; None if the goal is not reached."""
    note: dict[str, Any]
    """Quantization entry of the file's metadata."""
    tradeoff: Tradeoff
    """Evaluated candidates and the chosen one."""
    removed: Path | None = None
    """Int8 file of an earlier export that was removed, because the new one does not reach the goal."""


def quantize(
    path: str | Path,
    calibration: Pixels,
    held_out: Pixels | None = None,
    *,
    targets: Integers | None = None,
    recipe: QuantizationRecipe | None = None,
    goal: FidelityGoal | None = None,
    device: str = "generic",
    output: str | Path | None = None,
    progress: ProgressCallback = no_progress,
) -> QuantizedFile:
    """Quantize a model file to int8, with the last layer and the map in fp32.

    Args:
        path: fp32 model file with preprocessing in its metadata.
        calibration: images at the model's input size, uint8 RGB `[N, H, W, 3]`, from the training split.
        held_out: other images of the training split, to measure the loss; None splits off every third calibration
            image.
        targets: ground-truth class indices of the held-out images, int64 `[M]`, or None without labels.
        recipe: quantization settings; None uses the defaults.
        goal: agreement and map correlation to keep; None accepts any loss.
        device: device name for the metadata.
        output: file to write; None replaces the suffix of `path` by `.int8.onnx`.
        progress: called with the step, the completed count and the total.

    Raises:
        UsageError: there are no images, or targets without held-out images.
        ModelFileError: the file is already quantized, or cannot be converted to an opset with int8.
    """
    path = Path(path)
    model = Model.load(path)
    metadata = model.metadata
    if held_out is None:
        if targets is not None:
            raise UsageError("Targets belong to held-out images, but no held-out images were given.")
        calibration, held_out = (calibration, calibration) if len(calibration) < 3 else _split(calibration)
    output = path.with_suffix(".int8.onnx") if output is None else Path(output)
    quantized = quantize_graph(
        _graph_of(path, metadata.outputs.target_layer),
        calibration,
        held_out,
        recipe or QuantizationRecipe(),
        targets=targets,
        goal=goal,
        progress=progress,
    )
    note = quantized.note | {"device": device}
    if not quantized.tradeoff.met:
        removed = output if output.is_file() else None  # an earlier file was not made for this goal
        output.unlink(missing_ok=True)
        return QuantizedFile(None, note, quantized.tradeoff, removed)
    save_model(quantized.model, replace(metadata, quantization=note, golden=None), output)
    return QuantizedFile(output, note, quantized.tradeoff)


def _split(images: Pixels) -> tuple[Pixels, Pixels]:
    """Split off every third image."""
    third = slice(2, None, 3)
    kept = [index for index in range(len(images)) if index % 3 != 2]
    return images[kept], images[third]


def _graph_of(path: Path, target_layer: str | None) -> ExportedGraph:
    """Return the file's graph with unique node names and `class_index` as an input without a default."""
    model = onnx.load(path)
    if any(node.op_type in ("QuantizeLinear", "DynamicQuantizeLinear") for node in model.graph.node):
        raise ModelFileError(f"{path} is already quantized. Quantize the fp32 file it was made from.")
    kept = [tensor for tensor in model.graph.initializer if tensor.name != "class_index"]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    opset = next(item.version for item in model.opset_import if item.domain in ("", "ai.onnx"))
    if opset < _MIN_OPSET:
        try:
            model = version_converter.convert_version(model, _MIN_OPSET)
        except Exception as error:  # the converter raises RuntimeError and types of its own
            raise ModelFileError(
                f"{path} has opset {opset}; int8 needs {_MIN_OPSET}, and the conversion fails: "
                f"{first_line(error)} Export the model in a later opset."
            ) from error
    names: set[str] = set()
    for number, node in enumerate(model.graph.node):  # some tools leave names empty or use one several times
        if not node.name or node.name in names:
            node.name = f"{node.name or node.op_type}#{number}"
        names.add(node.name)
    tensors = {name for node in model.graph.node for name in node.output}
    if target_layer in tensors:
        return ExportedGraph(model, downstream(model.graph, str(target_layer)))
    return ExportedGraph(model, last_layer_and_map(model.graph, "logits"))
