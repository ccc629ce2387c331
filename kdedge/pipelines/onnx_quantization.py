"""Quantize a runnable file of another framework, judged against that file itself."""

from dataclasses import replace
from pathlib import Path

import onnx
from onnx import version_converter

from kdedge.pipelines.calibration_images import calibration_pictures
from kdedge.pipelines.model_export import ExportResult, Progress
from kdedge_export.onnx_graph.head_nodes import downstream
from kdedge_export.onnx_import import ExplainedFile
from kdedge_export.quantize import Goal, Recipe, quantize
from kdedge_export.torch_export import ExportedGraph, save_model
from kdedge_runtime.devices import DeviceProfile
from kdedge_runtime.errors import ModelFileError, UsageError
from kdedge_runtime.metadata import Metadata
from kdedge_runtime.onnx_session import first_line

__all__ = ["quantize_onnx"]

_OPSET_OF_CHANNELS = 13
"""The first whose DequantizeLinear has a scale for each channel."""


def quantize_onnx(
    file: ExplainedFile, *, data: str | None, goal: Goal, profile: DeviceProfile, progress: Progress
) -> ExportResult:
    """Write `FILE.int8.onnx` beside an explained file: its body in int8, the head and the map in float.

    Args:
        file: from `explain_onnx`, with a front.
        data: pictures to calibrate on.
        goal: what quantization must keep of the file's own answers and maps.
        profile: the device that the int8 file is for.
        progress: called while long steps go on.

    Returns:
        The result, with `int8` None where the goal is missed; the fp32 file's own errors are in `file`.

    Raises:
        UsageError: the file takes no pictures, or there are none to calibrate on.
        ModelFileError: the file is quantized already, or cannot be converted to an opset that has int8.
    """
    metadata = file.metadata
    if metadata is None:
        raise UsageError(
            f"int8 is calibrated on pictures, and {file.path} does not hold how they become its input. "
            "Add --mean MEAN --std STD, or leave --quantize out."
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
        removed = path if path.is_file() else None  # of an earlier export: it was not made for this goal
        path.unlink(missing_ok=True)
        return replace(result, removed=removed)
    save_model(quantized.model, replace(metadata, quantization=note, golden=None), path)
    return replace(result, int8=path)


def _graph_of(path: Path, metadata: Metadata) -> ExportedGraph:
    """The file's graph with a name for each node, and the class to explain as an input without a default."""
    model = onnx.load(path)
    if any(node.op_type in ("QuantizeLinear", "DynamicQuantizeLinear") for node in model.graph.node):
        raise ModelFileError(f"{path} is quantized already. Leave --quantize out, or explain the file it was made of.")
    kept = [tensor for tensor in model.graph.initializer if tensor.name != "class_index"]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    opset = next(item.version for item in model.opset_import if item.domain in ("", "ai.onnx"))
    if opset < _OPSET_OF_CHANNELS:
        try:
            model = version_converter.convert_version(model, _OPSET_OF_CHANNELS)
        except Exception as error:  # the converter raises RuntimeError and types of its own
            raise ModelFileError(
                f"{path} is written in opset {opset}, and int8 needs {_OPSET_OF_CHANNELS}, to which it cannot be "
                f"converted: {first_line(error)} Export the model in a later opset."
            ) from error
    names: set[str] = set()
    for number, node in enumerate(model.graph.node):  # some tools give no names, or the same to several nodes
        if not node.name or node.name in names:
            node.name = f"{node.name or node.op_type}#{number}"
        names.add(node.name)
    assert metadata.outputs.target_layer is not None
    return ExportedGraph(model, downstream(model.graph, metadata.outputs.target_layer))
