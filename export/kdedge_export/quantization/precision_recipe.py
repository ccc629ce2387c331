"""Definition of a precision recipe: the conversion of an fp32 graph, and the bounds of its fidelity."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import onnx

from kdedge_export.quantization.mixed_precision import FidelityGoal, Tradeoff
from kdedge_export.quantization.recipe import QuantizationRecipe
from kdedge_export.torch_export.exporter import ExportedGraph
from kdedge_runtime.modalities import InputSpec
from kdedge_runtime.util.arrays import Pixels, Targets
from kdedge_runtime.util.progress import ProgressCallback

__all__ = ["CalibrationSet", "ConversionInputs", "ConvertedGraph", "FidelityBounds", "PrecisionRecipe"]


@dataclass(frozen=True)
class FidelityBounds:
    """Bounds on a model file relative to its reference (`kdedge_export.candidates.reference`)."""

    accuracy_drop_points: float
    """Largest accuracy drop, in percentage points."""
    agreement: float
    """Minimum fraction of samples in [0, 1] with the reference's prediction; checked only without labels."""
    divergence: float
    """Largest mean KL divergence of the softmax from the reference's, in nats, each sample capped at 1."""
    logits_distance: float
    """Largest mean distance of the logits from the reference's (`agreement.distance`); 0.15 is an error of 35% of
    their norm."""
    map_pearson_mean: float
    """Minimum mean map correlation, in [-1, 1]."""
    map_pearson_p5: float
    """Minimum 5th percentile of the map correlation, since a good mean may hide a bad tail."""
    map_scale_error: float
    """Largest mean scale error of the maps, in [0, 1] (`map_similarity.scale_error`)."""
    other_map_pearson: float
    """Minimum mean correlation of maps of classes other than the top-1 class; a graph that mixes up classes scores far
    lower."""


@dataclass(frozen=True)
class CalibrationSet:
    """Training samples at the model's input size, to calibrate a conversion and to measure its loss."""

    calibration: Pixels
    """Preprocessed samples `[N, …]` to calibrate on."""
    held_out: Pixels
    """Other such samples `[M, …]`, to measure the loss."""
    targets: Targets | None = None
    """Ground truth of the held-out samples, int64 `[M]`; None without labels."""


@dataclass(frozen=True)
class ConversionInputs:
    """Arguments of a conversion."""

    graph: ExportedGraph
    """Graph of the fp32 file; it is not modified."""
    spec: InputSpec
    """Input specification of the file."""
    samples: CalibrationSet | None
    """Samples; None only for a recipe that needs none, which may use them if there are any."""
    settings: QuantizationRecipe
    """Integer kernels of the device."""
    goal: FidelityGoal
    """Fidelity to keep; an empty goal accepts any loss."""
    progress: ProgressCallback
    task: str = "classify"
    """Task of the model, a key of `kdedge_export.tasks.EXPORT_TASKS`."""


@dataclass(frozen=True)
class ConvertedGraph:
    """Converted graph with the description for its metadata."""

    model: onnx.ModelProto
    note: Mapping[str, Any]
    """Entry `quantization` of the metadata, as JSON values."""
    tradeoff: Tradeoff | None = None
    """Search for the layers to keep in fp32; None without a search."""


@dataclass(frozen=True)
class PrecisionRecipe:
    """Conversion of an fp32 graph to another precision. Name, file suffix and title are in the runtime's registry."""

    name: str
    """Name, a key of `kdedge_runtime.precision.PRECISIONS`."""
    convert: Callable[[ConversionInputs], ConvertedGraph]
    """Function that converts a graph; inputs, outputs, last layer and map keep their types."""
    bounds: FidelityBounds
    """Bounds of `kdedge validate`."""
