"""Static QDQ quantization: the body and large dense layers in int8, logits and map in fp32."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import onnx

from kdedge_export.onnx_graph.session import latency_note
from kdedge_export.quantization.calibration_ranges import METHODS, Range, clipped_range, observe
from kdedge_export.quantization.fidelity import FidelityEvaluator
from kdedge_export.quantization.mixed_precision import FidelityGoal, Tradeoff, search
from kdedge_export.quantization.precision_recipe import (
    ConversionInputs,
    ConvertedGraph,
    FidelityBounds,
    PrecisionRecipe,
)
from kdedge_export.quantization.prepare import PreparedGraph, prepare_graph
from kdedge_export.quantization.qdq import insert_quantization, observed_tensors
from kdedge_export.quantization.quantizable_layers import layers_of
from kdedge_export.quantization.recipe import QuantizationRecipe
from kdedge_export.torch_export.exporter import ExportedGraph
from kdedge_runtime.errors import UsageError
from kdedge_runtime.util.arrays import Pixels, Targets
from kdedge_runtime.util.progress import ProgressCallback, no_progress

__all__ = ["INT8", "Quantized", "quantize"]

_TIMED_RUNS = 50
_RANGES_CHOSEN_ON = 128
"""Maximum number of held-out samples for choosing ranges; the chosen file is evaluated on all."""


@dataclass(frozen=True)
class Quantized:
    """Quantized graph with its metadata and measurements."""

    model: onnx.ModelProto
    note: dict[str, Any]
    """Quantization entry of the metadata; JSON values."""
    tradeoff: Tradeoff
    """Search results."""
    int8_layers: tuple[str, ...]
    """Layers in int8, by module path."""
    ranges: Mapping[str, Range]
    """Calibrated range of every quantizable tensor."""

    @property
    def latency_ms(self) -> tuple[float, float]:
        """Median latency of fp32 and int8 on this machine for one sample, with one thread, measured interleaved."""
        latency = self.note["latency_ms"]
        return latency["fp32"], latency["int8"]


def quantize(
    graph: ExportedGraph,
    calibration: Pixels,
    held_out: Pixels,
    recipe: QuantizationRecipe,
    *,
    targets: Targets | None = None,
    task: str = "classify",
    goal: FidelityGoal | None = None,
    progress: ProgressCallback = no_progress,
) -> Quantized:
    """Quantize a graph: integer activations, int8 weights per channel.

    The map and small layers of the head stay in fp32, since they are less than one percent of the work. Logits are
    float, since int8 logits tie. Large dense layers are quantized by `dense_weights`, since onnxruntime's quantizer
    crashes if the map shares their weights. The calibration method is the one with the smallest loss of predictions and
    maps on held-out samples.

    Args:
        graph: result of `export_graph`.
        calibration: preprocessed samples `[N, *input.shape]` of the training split.
        held_out: other samples of the training split.
        recipe: the device's settings.
        targets: int64, the ground truth of the held-out samples; None without labels.
        task: task of the model, a key of `kdedge_export.tasks.EXPORT_TASKS`.
        goal: target to meet; None keeps no layer in fp32.
        progress: called during long steps.

    Raises:
        UsageError: there are no samples.
    """
    if len(calibration) == 0 or len(held_out) == 0:
        raise UsageError(
            "Quantization needs calibration samples, but there are none. Name a folder with samples: --data DIR."
        )
    rewritten = prepare_graph(graph, bytes_in=recipe.activations == "uint8")
    evaluator = FidelityEvaluator(graph.model, held_out, targets, task)
    method, losses, ranges = _choose_ranges(rewritten, calibration, evaluator, recipe, progress)
    build = partial(insert_quantization, rewritten, ranges, recipe)
    layers = layers_of(rewritten)
    tradeoff = search(graph.model, build, layers, evaluator, calibration[:1], goal or FidelityGoal(), progress)
    kept = set(tradeoff.chosen.float_layers)
    model = build([name for layer in layers if layer.name in kept for name in layer.nodes])
    latency_ms = latency_note({"fp32": graph.model, "int8": model}, calibration[:1], runs=_TIMED_RUNS)
    found = tradeoff.chosen.fidelity
    ranged = {
        "calibration": method,
        "calibration_loss": losses,
        "calibration_sha256": hashlib.sha256(calibration.tobytes()).hexdigest(),
        "calibration_samples": len(calibration),
    }
    settings = asdict(recipe)
    if not ranges:  # weights alone are quantized
        ranged, settings["activations"] = {}, "float32"
    note = {
        "format": "qdq" if layers else "weights",
        "weights": "int8",
        "per_channel": True,
        **ranged,
        "float_layers": list(tradeoff.chosen.float_layers),
        "goal": asdict(tradeoff.goal),
        "held_out": {"samples": len(held_out)} | found.to_dict(),
        "latency_ms": latency_ms,
    }
    int8_layers = tuple(layer.name for layer in layers if layer.name not in kept)
    return Quantized(model, note | settings, tradeoff, int8_layers, ranges)


def _convert(inputs: ConversionInputs) -> ConvertedGraph:
    samples = inputs.samples
    assert samples is not None, "INT8 needs samples"
    quantized = quantize(
        inputs.graph,
        samples.calibration,
        samples.held_out,
        inputs.settings,
        targets=samples.targets,
        task=inputs.task,
        goal=inputs.goal,
        progress=inputs.progress,
    )
    return ConvertedGraph(quantized.model, quantized.note, quantized.tradeoff)


INT8 = PrecisionRecipe(
    "int8",
    _convert,
    FidelityBounds(
        accuracy_drop_points=1.0,
        agreement=0.90,
        divergence=0.1,
        logits_distance=0.15,
        map_pearson_mean=0.98,
        map_pearson_p5=0.90,
        map_scale_error=0.1,
        other_map_pearson=0.9,
    ),
)


def _choose_ranges(
    rewritten: PreparedGraph,
    calibration: Pixels,
    evaluator: FidelityEvaluator,
    recipe: QuantizationRecipe,
    progress: ProgressCallback,
) -> tuple[str, dict[str, float], Mapping[str, Range]]:
    """Return the best method, the loss of each method with all layers in int8, and the best ranges."""
    done = 0

    def count(samples: int) -> None:
        nonlocal done
        done += samples
        progress("calibrating", done, 2 * len(calibration))

    count(0)
    tensors = observed_tensors(rewritten)
    if not tensors:  # weights alone are quantized
        return "none", {}, {}
    histograms = observe(rewritten.proto, tensors, calibration, count)
    ways: dict[str, Mapping[str, Range]] = {
        method: {name: clipped_range(histogram, method) for name, histogram in histograms.items()} for method in METHODS
    }
    losses: dict[str, float] = {}
    progress("choosing ranges", 0, len(ways))
    for number, (way, ranges) in enumerate(ways.items()):
        losses[way] = evaluator.evaluate(insert_quantization(rewritten, ranges, recipe), _RANGES_CHOSEN_ON).loss
        progress("choosing ranges", number + 1, len(ways))
    best = min(ways, key=lambda way: losses[way])
    return best, losses, ways[best]
