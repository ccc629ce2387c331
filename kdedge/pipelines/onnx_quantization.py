"""Quantize an explained file of another framework; its fp32 file is the reference."""

from dataclasses import replace
from pathlib import Path

import onnx
from onnx import version_converter

from kdedge.pipelines.calibration_images import calibration_pictures
from kdedge.pipelines.model_export import ExportResult, Progress
from kdedge_export.onnx_graph.head_nodes import downstream
from kdedge_export.onnx_import import ExplainedFile
from kdedge_export.quantization import Goal, Recipe, quantize
from kdedge_export.torch_export import ExportedGraph, save_model
from kdedge_runtime.devices import DeviceProfile
from kdedge_runtime.errors import ModelFileError, UsageError
from kdedge_runtime.metadata import Metadata
from kdedge_runtime.onnx_session import first_line

__all__ = ["quantize_onnx"]

_OPSET_OF_CHANNELS = 13
"""First opset whose DequantizeLinear supports per-channel scales."""


def quantize_onnx(
    file: ExplainedFile, *, data: str | None, goal: Goal, profile: DeviceProfile, progress: Progress
) -> ExportResult:
    """Write `FILE.int8.onnx` next to an explained file: backbone in int8, head and map in fp32.

    Args:
        file: Result of `explain_onnx`, with preprocessing.
        data: Images to calibrate on.
        goal: Quantization goal relative to the file's own predictions and maps.
        profile: Device profile of the int8 file.
        progress: Called during long steps.

    Returns:
        The result, with `int8` None if the goal is missed. The fp32 file's own errors are in `file`.

    Raises:
        UsageError: The file has no preprocessing, or there are no calibration images.
        ModelFileError: The file is already quantized, or cannot be converted to an opset with int8 support.
    """
    metadata = file.metadata
    if metadata is None:
        raise UsageError(
            f"int8 calibration needs images, but {file.path} has no preprocessing for them. Add --mean MEAN "
            "--std STD, or remove --quantize."
        )
    graph = _graph_of(file.path, metadata)
    pictures = calibration_pictures(str(file.path), metadata, data, progress)
    recipe = Recipe(profile.quantization.reduce_range, profile.quantization.activations)
    quantized = quantize(
        graph,
        pictures.calibration,
        pictures.held_out,
        recipe,
        targets=pictures.targets,
        goal=goal,
        progress=progress,
    )
    note = quantized.note | {"device": profile.name}
    path = file.path.with_suffix(".int8.onnx")
    result = ExportResult(
        file.path,
        metadata,
        file.output_error,
        file.map_error,
        int8_note=note,
        tradeoff=quantized.tradeoff,
        problems=pictures.problems,
    )
    if not quantized.tradeoff.met:
        removed = path if path.is_file() else None  # from an earlier export, made for another goal
        path.unlink(missing_ok=True)
        return replace(result, removed=removed)
    save_model(quantized.model, replace(metadata, quantization=note, golden=None), path)
    return replace(result, int8=path)


def _graph_of(path: Path, metadata: Metadata) -> ExportedGraph:
    """Load the file's graph with unique node names, and make the class index an input without a default."""
    model = onnx.load(path)
    if any(node.op_type in ("QuantizeLinear", "DynamicQuantizeLinear") for node in model.graph.node):
        raise ModelFileError(f"{path} is already quantized. Remove --quantize, or give the original fp32 file.")
    kept = [tensor for tensor in model.graph.initializer if tensor.name != "class_index"]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    opset = next(item.version for item in model.opset_import if item.domain in ("", "ai.onnx"))
    if opset < _OPSET_OF_CHANNELS:
        try:
            model = version_converter.convert_version(model, _OPSET_OF_CHANNELS)
        except Exception as error:  # the converter raises RuntimeError and its own types
            raise ModelFileError(
                f"{path} uses opset {opset}, but int8 needs opset {_OPSET_OF_CHANNELS}, and the conversion failed: "
                f"{first_line(error)} Export the model with a later opset."
            ) from error
    names: set[str] = set()
    for number, node in enumerate(model.graph.node):  # some exporters leave names empty or duplicate
        if not node.name or node.name in names:
            node.name = f"{node.name or node.op_type}#{number}"
        names.add(node.name)
    assert metadata.outputs.target_layer is not None
    return ExportedGraph(model, downstream(model.graph, metadata.outputs.target_layer))
