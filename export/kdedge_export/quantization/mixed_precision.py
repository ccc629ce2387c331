"""Mixed-precision search: find a small set of layers to keep in fp32, greedily and therefore not always minimal."""

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass

import onnx

from kdedge_export.onnx_graph.session import open_session, paired_latency_ms
from kdedge_export.quantization.fidelity import Fidelity, FidelityEvaluator
from kdedge_export.quantization.quantizable_layers import QuantizableLayer
from kdedge_runtime.errors import UsageError
from kdedge_runtime.util.arrays import Pixels
from kdedge_runtime.util.progress import ProgressCallback

__all__ = ["FidelityGoal", "Tradeoff", "TradeoffPoint", "search"]

_RANKED_ON = 64
"""Maximum number of samples for ranking single layers; final decisions use all samples."""

Build = Callable[[Collection[str]], onnx.ModelProto]
"""Function from the names of fp32 nodes to the quantized graph."""


@dataclass(frozen=True)
class FidelityGoal:
    """Target of quantization, on samples not used for calibration."""

    min_map_correlation: float | None = None
    """Minimum mean Pearson correlation with the maps of the fp32 graph, in [-1, 1]."""
    max_drop: float | None = None
    """Maximum drop of top-1 accuracy in percentage points; without labels, of changed predictions."""

    def missed(self, found: Fidelity) -> tuple[float, float]:
        """Return the losses of maps and predictions relative to their limits; values up to 1 meet the target."""
        maps = drop = 0.0
        if self.min_map_correlation is not None:
            lost = math.inf if found.map_pearson is None else 1 - found.map_pearson
            maps = lost / max(1 - self.min_map_correlation, 1e-6)
        if self.max_drop is not None:
            drop = found.drop_points / max(self.max_drop, 1e-6)
        return maps, drop

    def kept(self, found: Fidelity) -> bool:
        """Return True if both targets are met."""
        return all(part <= 1 for part in self.missed(found))  # False for NaN


@dataclass(frozen=True)
class TradeoffPoint:
    """Measured selection of fp32 layers."""

    float_layers: tuple[str, ...]
    bytes: int
    """File size in bytes."""
    latency_ms: float
    """Median latency of one sample on this machine, with one thread."""
    fp32_latency_ms: float
    """Median latency of the fp32 graph, measured interleaved."""
    fidelity: Fidelity

    @property
    def speedup(self) -> float:
        """Speed relative to the fp32 graph."""
        return self.fp32_latency_ms / self.latency_ms


@dataclass(frozen=True)
class Tradeoff:
    """Results of the search."""

    points: tuple[TradeoffPoint, ...]
    """Selections in the order they were measured; the first has all layers in int8."""
    chosen: TradeoffPoint
    """Selection that meets the target with the fewest fp32 layers of those tried; the closest one if none does."""
    fp32: TradeoffPoint
    samples: int
    """Number of samples used to measure the fidelity."""
    goal: FidelityGoal
    layers: int
    """Number of quantizable layers."""

    @property
    def met(self) -> bool:
        """True if the target is met with at least one layer in int8."""
        return self.goal.kept(self.chosen.fidelity)

    @property
    def efficient(self) -> tuple[TradeoffPoint, ...]:
        """Pareto-optimal selections in speed and fidelity, fastest first."""
        ordered = sorted(self.points, key=lambda point: (1 / point.speedup, point.fidelity.loss))
        front: list[TradeoffPoint] = []
        for point in ordered:
            if not front or point.fidelity.loss < front[-1].fidelity.loss:
                front.append(point)
        return tuple(front)


def search(
    fp32: onnx.ModelProto,
    build: Build,
    layers: tuple[QuantizableLayer, ...],
    evaluator: FidelityEvaluator,
    sample: Pixels,
    goal: FidelityGoal,
    progress: ProgressCallback,
) -> Tradeoff:
    """Keep layers in fp32 until the target is met, then quantize those that turn out not to be needed.

    Each layer is first quantized alone, with the rest in fp32, to measure its effect. The next layer to keep in fp32 is
    the one with the largest effect on the target missed by more: maps or predictions.

    Args:
        fp32: the fp32 graph.
        build: builds the quantized graph.
        layers: layers that may be kept in fp32.
        evaluator: evaluator with the fp32 graph's results on held-out samples.
        sample: preprocessed sample `[1, …]` for timing.
        goal: the target; an empty one is met by plain int8.
        progress: called while single layers and then sets of layers are measured.

    Raises:
        UsageError: a map target is set, but the graph has no map.
    """
    if goal.min_map_correlation is not None and evaluator.itself.map_pearson is None:
        raise UsageError("The model has no map to compare. Export it with a map, or remove --min-map-correlation.")
    reference = open_session(fp32, exact_sums=False)

    def measure(chosen: Collection[QuantizableLayer]) -> TradeoffPoint:
        model = build([name for layer in chosen for name in layer.nodes])
        fp32_ms, latency_ms = paired_latency_ms([reference, open_session(model, exact_sums=False)], sample)
        names = tuple(layer.name for layer in layers if layer in chosen)
        return TradeoffPoint(names, model.ByteSize(), latency_ms, fp32_ms, evaluator.evaluate(model))

    points = [measure(())]
    whole = TradeoffPoint(
        tuple(layer.name for layer in layers),
        fp32.ByteSize(),
        points[0].fp32_latency_ms,
        points[0].fp32_latency_ms,
        evaluator.itself,
    )

    def result(point: TradeoffPoint) -> Tradeoff:
        return Tradeoff(tuple(points), point, whole, len(evaluator), goal, len(layers))

    if goal.kept(points[0].fidelity):
        return result(points[0])
    alone: list[Fidelity] = []
    every = frozenset(name for layer in layers for name in layer.nodes)
    progress("measuring layers", 0, len(layers))
    for number, layer in enumerate(layers):
        alone.append(evaluator.evaluate(build(every - layer.nodes), _RANKED_ON))
        progress("measuring layers", number + 1, len(layers))
    by_maps = sorted(range(len(layers)), key=lambda index: alone[index].map_pearson or 0.0)
    by_predictions = sorted(range(len(layers)), key=lambda index: -alone[index].logits_error)
    floats: list[int] = []
    progress("keeping layers in fp32", 0, len(layers))
    while not goal.kept(points[-1].fidelity) and len(floats) < len(layers) - 1:
        maps, predictions = goal.missed(points[-1].fidelity)
        floats.append(
            next(index for index in (by_maps if maps > predictions else by_predictions) if index not in floats)
        )
        points.append(measure([layers[index] for index in floats]))
        progress("keeping layers in fp32", len(floats), len(layers))
    if not goal.kept(points[-1].fidelity):
        return result(min(points, key=lambda point: max(goal.missed(point.fidelity))))
    best = points[-1]
    for index in list(reversed(floats))[1:]:  # the last one was needed
        fewer = [other for other in floats if other != index]
        points.append(measure([layers[other] for other in fewer]))
        if goal.kept(points[-1].fidelity):
            floats, best = fewer, points[-1]
    return result(best)
