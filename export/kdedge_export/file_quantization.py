"""Conversion of a model file to other precisions, each a file next to it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx
from onnx import version_converter

from kdedge_export.familiarity.enrollment_threshold import with_thresholds
from kdedge_export.familiarity.fitting import FamiliaritySamples
from kdedge_export.onnx_graph.head_nodes import downstream, last_layer_and_map
from kdedge_export.onnx_graph.model_file import save_model
from kdedge_export.onnx_graph.prototypes import fix_prototypes
from kdedge_export.quantization import (
    CalibrationSet,
    ConversionInputs,
    FidelityGoal,
    QuantizationRecipe,
    Tradeoff,
    recipe_named,
)
from kdedge_export.torch_export.exporter import ExportedGraph
from kdedge_runtime import Metadata, Model
from kdedge_runtime.errors import ModelFileError, UsageError
from kdedge_runtime.modalities import InputSpec
from kdedge_runtime.onnx_session import first_line
from kdedge_runtime.precision import FP32, check_fp32_name, precision_named, variant_path
from kdedge_runtime.util.arrays import Pixels, Targets
from kdedge_runtime.util.counts import counted
from kdedge_runtime.util.files import atomic_path
from kdedge_runtime.util.progress import ProgressCallback, no_progress

__all__ = ["QuantizedFile", "quantize", "write_precision"]

_MIN_OPSET = 13
"""First opset with per-channel scales in DequantizeLinear."""


@dataclass(frozen=True)
class QuantizedFile:
    """Result of converting a model file to another precision."""

    path: Path | None
    """Written file; None if the goal is not reached."""
    note: Mapping[str, Any]
    """Quantization entry of the file's metadata."""
    tradeoff: Tradeoff | None
    """Evaluated candidates and the chosen one; None for a recipe without a search."""
    removed: Path | None = None
    """File of an earlier export that was removed, because the new one does not reach the goal."""


def quantize(
    path: str | Path,
    calibration: Pixels | None = None,
    held_out: Pixels | None = None,
    *,
    precision: str = "int8",
    targets: Targets | None = None,
    familiarity: FamiliaritySamples | None = None,
    recipe: QuantizationRecipe | None = None,
    goal: FidelityGoal | None = None,
    device: str = "generic",
    output: str | Path | None = None,
    progress: ProgressCallback = no_progress,
) -> QuantizedFile:
    """Convert a model file to another precision, with the last layer and the map in fp32.

    Args:
        path: fp32 model file with preprocessing in its metadata.
        calibration: samples of the training split as the file takes them, `[N, …]`, for images uint8. int8 needs them;
            fp16 also measures its largest values on them.
        held_out: other samples of the training split, to measure the loss; None splits off every third calibration
            sample.
        precision: name of the recipe, a key of `kdedge_export.quantization.RECIPES`.
        targets: ground-truth class indices of the held-out samples, int64 `[M]`, or None without labels.
        familiarity: samples to fit the thresholds of familiarity and of enrolled classes again; None keeps those of the
            fp32 file.
        recipe: settings of integer kernels; None uses the defaults.
        goal: agreement and map correlation to keep; None accepts any loss.
        device: device name for the metadata.
        output: file to write; None replaces the suffix of `path` by that of the precision, such as `.int8.onnx`.
        progress: called with the step, the completed count and the total.

    Raises:
        UsageError: there is no such recipe, it needs samples and there are none or of another form, fewer than three
            cannot be split, or there are targets without held-out samples.
        ModelFileError: the file is already quantized, or cannot be converted.
    """
    path = Path(path)
    model = Model.load(path)
    if model.metadata.precision != FP32.name:
        raise ModelFileError(f"{path} is already quantized. Quantize the fp32 file it was made from.")
    check_fp32_name(path)
    if held_out is None and targets is not None:
        raise UsageError("Targets belong to held-out samples, but no held-out samples were given.")
    for given in (calibration, held_out):
        if given is not None:
            _require_samples(given, model.metadata.input)
    samples = None
    if calibration is not None:
        if held_out is None:
            calibration, held_out = _split(calibration)
        samples = CalibrationSet(calibration, held_out, targets)
    return write_precision(
        _graph_of(path, model.metadata.outputs.target_layer),
        model.metadata,
        variant_path(path, precision_named(precision)) if output is None else Path(output),
        precision,
        samples,
        familiarity=familiarity,
        settings=recipe,
        goal=goal,
        device=device,
        progress=progress,
    )


def write_precision(
    graph: ExportedGraph,
    metadata: Metadata,
    output: Path,
    precision: str,
    samples: CalibrationSet | None,
    *,
    familiarity: FamiliaritySamples | None = None,
    settings: QuantizationRecipe | None = None,
    goal: FidelityGoal | None = None,
    device: str = "generic",
    progress: ProgressCallback = no_progress,
) -> QuantizedFile:
    """Convert the graph of an fp32 file by a recipe, and write the result.

    Args:
        graph: graph of the fp32 file.
        metadata: metadata of the fp32 file.
        output: file to write. If the goal is missed, an earlier file of this name is removed.
        precision: name of the recipe.
        samples: calibration samples; None only for a recipe that needs none, which may use them if there are any.
        familiarity: samples to fit the thresholds of familiarity and of enrolled classes again; None keeps those of the
            fp32 file.
        settings: settings of integer kernels; None uses the defaults.
        goal: fidelity to keep; None accepts any loss.
        device: device name for the metadata.
        progress: called during long steps.

    Raises:
        UsageError: there is no such recipe, it needs samples and there are none, or it cannot meet a goal.
        ModelFileError: the graph cannot be converted.
    """
    recipe, goal = recipe_named(precision), goal or FidelityGoal()
    if precision_named(precision).is_calibrated and samples is None:
        raise UsageError(
            f"{precision} needs calibration samples, but none were given. Pass samples of the training split."
        )
    if not precision_named(precision).is_calibrated and goal != FidelityGoal():
        raise UsageError(
            f"{precision} has no layers to choose for a goal. Remove the goal, or use a precision such as int8."
        )
    inputs = ConversionInputs(
        graph, metadata.input, samples, settings or QuantizationRecipe(), goal, progress, metadata.task
    )
    converted = recipe.convert(inputs)
    note = {**converted.note, "precision": precision, "device": device}
    if converted.tradeoff is not None and not converted.tradeoff.met:
        removed = output if output.is_file() else None  # an earlier file was not made for this goal
        output.unlink(missing_ok=True)
        return QuantizedFile(None, note, converted.tradeoff, removed)
    metadata = replace(metadata, quantization=note, reference_frames=None)
    with atomic_path(output) as temporary:
        save_model(converted.model, metadata, temporary)
        if familiarity is not None and familiarity.known is not None and metadata.familiarity is not None:
            # Rounding shifts familiarity, and known samples may lie close together.
            model = Model.load(temporary, exact_sums=True)
            metadata = with_thresholds(model, metadata, familiarity)
            save_model(converted.model, metadata, temporary)
    return QuantizedFile(output, note, converted.tradeoff)


def _require_samples(samples: Pixels, spec: InputSpec) -> None:
    if samples.dtype != spec.dtype or samples.shape[1:] != spec.shape:
        shape = ", ".join(map(str, ("N", *spec.shape)))
        raise UsageError(
            f"The samples have the shape {samples.shape} and the type {samples.dtype}. Expected {spec.dtype} "
            f"[{shape}], as the file takes them."
        )


def _split(samples: Pixels) -> tuple[Pixels, Pixels]:
    """Split off every third sample.

    Raises:
        UsageError: there are fewer than three samples.
    """
    if len(samples) < 3:
        raise UsageError(
            f"{counted(len(samples), 'calibration sample')} cannot be split to measure the loss on other samples. Give "
            "at least 3, or held-out samples."
        )
    third = slice(2, None, 3)
    kept = [index for index in range(len(samples)) if index % 3 != 2]
    return samples[kept], samples[third]


def _graph_of(path: Path, target_layer: str | None) -> ExportedGraph:
    """Return the file's graph with unique node names, and without defaults of inputs; prototypes become a constant."""
    model = onnx.load(path)
    if any(node.op_type in ("QuantizeLinear", "DynamicQuantizeLinear") for node in model.graph.node):
        raise ModelFileError(f"{path} is already quantized. Quantize the fp32 file it was made from.")
    kept = [tensor for tensor in model.graph.initializer if tensor.name != "class_index"]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    fix_prototypes(model)
    opset = next(item.version for item in model.opset_import if item.domain in ("", "ai.onnx"))
    if opset < _MIN_OPSET:
        try:
            model = version_converter.convert_version(model, _MIN_OPSET)
        except Exception as error:  # the converter raises RuntimeError and types of its own
            raise ModelFileError(
                f"{path} has opset {opset}; quantization needs {_MIN_OPSET}, and the conversion fails: "
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
