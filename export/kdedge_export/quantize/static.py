"""Static quantization to int8 in QDQ form: the body and large dense layers in int8, logits and map in float."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import onnx

from kdedge_export.onnx_graph.session import open_session, paired_latency_ms
from kdedge_export.quantize.calibration_ranges import METHODS, Range, clipped_range, observe
from kdedge_export.quantize.fidelity import Judge
from kdedge_export.quantize.mixed_precision import Goal, Tradeoff, search
from kdedge_export.quantize.prepare import Rewritten, rewrite
from kdedge_export.quantize.qdq import insert_quantization, observed_tensors
from kdedge_export.quantize.quantizable_layers import layers_of
from kdedge_export.quantize.recipe import Recipe
from kdedge_export.torch_export.exporter import ExportedGraph
from kdedge_runtime.devices.detection import machine_name
from kdedge_runtime.errors import UsageError
from kdedge_runtime.util.arrays import Integers, Pixels

__all__ = ["Quantized", "quantize"]

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much is done, and how much there is."""
_AS_TRAINED = "trained"
"""How a note calls ranges that the network was trained in, beside the methods of calibration."""
_TIMED_RUNS = 50
_RANGES_CHOSEN_ON = 128
"""Held-out images at most: four files are compared, of which the one that is chosen is judged on all."""


@dataclass(frozen=True)
class Quantized:
    """A quantized graph and what is known of it."""

    model: onnx.ModelProto
    note: dict[str, Any]
    """For its metadata; JSON values."""
    tradeoff: Tradeoff
    """What was tried to get there, and how it did."""
    int8_layers: tuple[str, ...]
    """The layers in int8, by their modules' paths."""
    ranges: Mapping[str, Range]
    """That were chosen, of all tensors that could be rounded."""

    @property
    def latency_ms(self) -> tuple[float, float]:
        """Median of fp32 and int8 on this machine, one image, one thread, measured in turn."""
        latency = self.note["latency_ms"]
        return latency["fp32"], latency["int8"]


def quantize(
    graph: ExportedGraph,
    calibration: Pixels,
    held_out: Pixels,
    recipe: Recipe,
    *,
    targets: Integers | None = None,
    goal: Goal | None = None,
    reference: onnx.ModelProto | None = None,
    trained_in: Mapping[str, Range] | None = None,
    progress: Progress = lambda *_: None,
) -> Quantized:
    """Quantize a graph: integer activations, int8 weights per channel.

    The map and what is small in the head stay float: they are less than one percent of the work. Logits are float, as
    int8 ones tie. Large dense layers are quantized by `dense`: onnxruntime's quantizer crashes where the map shares
    their weights. How ranges are clipped is chosen by what the answers and maps lose by it on held-out images.

    Args:
        graph: from `export_graph`.
        calibration: uint8 RGB `[N, H, W, 3]` at the model's size, from the training side.
        held_out: the same, of other images of the training side.
        recipe: the device's settings.
        targets: int64, the right classes of the held-out images; None without labels.
        goal: what must be kept; None keeps nothing in float.
        reference: the float graph whose answers and maps are to be kept; None takes the one that is quantized.
        trained_in: ranges of all tensors that the network has learned to be rounded in; they are tried too. Training
            that clips makes the values beyond a range mean nothing, and calibration would make room for them.
        progress: told while long steps go on.

    Raises:
        UsageError: there are no images.
    """
    if len(calibration) == 0 or len(held_out) == 0:
        raise UsageError("Quantization needs calibration images and got none. Name a folder of pictures: --data DIR.")
    rewritten = rewrite(graph, bytes_in=recipe.activations == "uint8")
    judge = Judge(reference or graph.model, held_out, targets)
    method, losses, ranges = _choose_ranges(rewritten, calibration, judge, recipe, trained_in, progress)
    build = partial(insert_quantization, rewritten, ranges, recipe)
    layers = layers_of(rewritten)
    tradeoff = search(graph.model, build, layers, judge, calibration[:1], goal or Goal(), progress)
    kept = set(tradeoff.chosen.float_layers)
    model = build([name for layer in layers if layer.name in kept for name in layer.nodes])
    timed = [open_session(each, exact_int8=False) for each in (graph.model, model)]
    fp32_ms, int8_ms = paired_latency_ms(timed, calibration[:1], runs=_TIMED_RUNS)
    found = tradeoff.chosen.fidelity
    note = {
        "format": "qdq",
        "weights": "int8",
        "per_channel": True,
        "calibration": method,
        "calibration_loss": losses,
        "calibration_sha256": hashlib.sha256(calibration.tobytes()).hexdigest(),
        "calibration_images": len(calibration),
        "float_layers": list(tradeoff.chosen.float_layers),
        "goal": asdict(tradeoff.goal),
        "held_out": {"images": len(held_out)} | found.to_dict(),
        "latency_ms": {"fp32": fp32_ms, "int8": int8_ms, "machine": machine_name(), "threads": 1},
    }
    int8_layers = tuple(layer.name for layer in layers if layer.name not in kept)
    return Quantized(model, note | asdict(recipe), tradeoff, int8_layers, ranges)


def _choose_ranges(
    rewritten: Rewritten,
    calibration: Pixels,
    judge: Judge,
    recipe: Recipe,
    trained_in: Mapping[str, Range] | None,
    progress: Progress,
) -> tuple[str, dict[str, float], Mapping[str, Range]]:
    """The best way, what each loses with all layers in int8, and the ranges by the best."""
    done = 0

    def count(images: int) -> None:
        nonlocal done
        done += images
        progress("calibrating", done, 2 * len(calibration))

    count(0)
    histograms = observe(rewritten.model, observed_tensors(rewritten), calibration, count)
    ways: dict[str, Mapping[str, Range]] = {
        method: {name: clipped_range(histogram, method) for name, histogram in histograms.items()} for method in METHODS
    }
    if trained_in is not None:
        ways[_AS_TRAINED] = trained_in
    losses: dict[str, float] = {}
    progress("choosing ranges", 0, len(ways))
    for number, (way, ranges) in enumerate(ways.items()):
        losses[way] = judge.judge(insert_quantization(rewritten, ranges, recipe), _RANGES_CHOSEN_ON).loss
        progress("choosing ranges", number + 1, len(ways))
    best = min(ways, key=lambda way: losses[way])
    return best, losses, ways[best]
