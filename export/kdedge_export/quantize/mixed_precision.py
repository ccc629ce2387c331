"""Find few layers whose staying in float keeps the answer and the reason: greedily, so that fewer may do."""

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass

import onnx

from kdedge_export.onnx_graph.session import open_session, paired_latency_ms
from kdedge_export.quantize.fidelity import Fidelity, Judge
from kdedge_export.quantize.quantizable_layers import Layer
from kdedge_runtime.errors import UsageError
from kdedge_runtime.util.arrays import Pixels

__all__ = ["Goal", "Tradeoff", "TradeoffPoint", "search"]

_RANKED_ON = 64
"""Images on which single layers are ranked, at most; what is decided is decided on all."""

Build = Callable[[Collection[str]], onnx.ModelProto]
"""From the names of the nodes to leave in float, the quantized graph."""
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Goal:
    """What quantization must keep, on images that it is not calibrated on."""

    keep_heatmaps: float | None = None
    """Least mean Pearson correlation of the maps with those of the float graph, in [-1, 1]."""
    max_drop: float | None = None
    """Most percentage points of top-1 accuracy to lose, or of answers to change where there are no labels."""

    def missed(self, found: Fidelity) -> tuple[float, float]:
        """How much too much is lost of maps and answers, relative to what may be; at most 1 is kept."""
        maps = drop = 0.0
        if self.keep_heatmaps is not None:
            lost = math.inf if found.map_pearson is None else 1 - found.map_pearson
            maps = lost / max(1 - self.keep_heatmaps, 1e-6)
        if self.max_drop is not None:
            drop = found.drop_points / max(self.max_drop, 1e-6)
        return maps, drop

    def kept(self, found: Fidelity) -> bool:
        """Whether neither is missed."""
        return all(part <= 1 for part in self.missed(found))  # not what is no number


@dataclass(frozen=True)
class TradeoffPoint:
    """One way to divide the layers, measured."""

    float_layers: tuple[str, ...]
    bytes: int
    """Of the file."""
    latency_ms: float
    """Median on this machine, one image, one thread."""
    fp32_latency_ms: float
    """Of the float graph, measured in turn with it."""
    fidelity: Fidelity

    @property
    def speedup(self) -> float:
        """How many times as fast as the float graph."""
        return self.fp32_latency_ms / self.latency_ms


@dataclass(frozen=True)
class Tradeoff:
    """What was tried."""

    points: tuple[TradeoffPoint, ...]
    """In the order of trying; the first has all layers in int8."""
    chosen: TradeoffPoint
    """With the fewest layers in float of those tried that keep the goal; the one nearest to it where none does."""
    fp32: TradeoffPoint
    images: int
    """On which fidelity was measured."""
    goal: Goal
    layers: int
    """That could be quantized."""

    @property
    def met(self) -> bool:
        """Whether the goal is kept with at least one layer in int8."""
        return self.goal.kept(self.chosen.fidelity)

    @property
    def efficient(self) -> tuple[TradeoffPoint, ...]:
        """The points that no other one beats in both speed and what is kept, fastest first."""
        ordered = sorted(self.points, key=lambda point: (1 / point.speedup, point.fidelity.loss))
        front: list[TradeoffPoint] = []
        for point in ordered:
            if not front or point.fidelity.loss < front[-1].fidelity.loss:
                front.append(point)
        return tuple(front)


def search(
    fp32: onnx.ModelProto,
    build: Build,
    layers: tuple[Layer, ...],
    judge: Judge,
    image: Pixels,
    goal: Goal,
    progress: Progress,
) -> Tradeoff:
    """Take layers out of int8 until the goal is kept, then put back those that it is kept without.

    Each layer is first quantized alone, the rest in float: what it costs by itself. Of what is missed most, maps or
    answers, the layer that costs most of it is the next to stay in float.

    Args:
        fp32: the float graph.
        build: makes the quantized one.
        layers: that may stay in float.
        judge: the float graph's answers on held-out images.
        image: uint8 `[1, H, W, 3]` to time with.
        goal: what to keep; an empty one is kept by plain int8.
        progress: told while single layers and then sets of them are measured.

    Raises:
        UsageError: maps are to be kept, and the graph gives none.
    """
    if goal.keep_heatmaps is not None and judge.itself.map_pearson is None:
        raise UsageError(
            "There are no heatmaps to keep: the model gives no map. Export it with one, or leave that out."
        )
    reference = open_session(fp32, exact_int8=False)

    def measure(chosen: Collection[Layer]) -> TradeoffPoint:
        model = build([name for layer in chosen for name in layer.nodes])
        fp32_ms, latency_ms = paired_latency_ms([reference, open_session(model, exact_int8=False)], image)
        names = tuple(layer.name for layer in layers if layer in chosen)
        return TradeoffPoint(names, model.ByteSize(), latency_ms, fp32_ms, judge.judge(model))

    points = [measure(())]
    whole = TradeoffPoint(
        tuple(layer.name for layer in layers),
        fp32.ByteSize(),
        points[0].fp32_latency_ms,
        points[0].fp32_latency_ms,
        judge.itself,
    )

    def result(point: TradeoffPoint) -> Tradeoff:
        return Tradeoff(tuple(points), point, whole, len(judge), goal, len(layers))

    if goal.kept(points[0].fidelity):
        return result(points[0])
    alone: list[Fidelity] = []
    every = frozenset(name for layer in layers for name in layer.nodes)
    progress("measuring layers", 0, len(layers))
    for number, layer in enumerate(layers):
        alone.append(judge.judge(build(every - layer.nodes), _RANKED_ON))
        progress("measuring layers", number + 1, len(layers))
    by_maps = sorted(range(len(layers)), key=lambda index: alone[index].map_pearson or 0.0)
    by_answers = sorted(range(len(layers)), key=lambda index: -alone[index].logits_error)
    floats: list[int] = []
    progress("keeping layers in float", 0, len(layers))
    while not goal.kept(points[-1].fidelity) and len(floats) < len(layers) - 1:
        maps, answers = goal.missed(points[-1].fidelity)
        floats.append(next(index for index in (by_maps if maps > answers else by_answers) if index not in floats))
        points.append(measure([layers[index] for index in floats]))
        progress("keeping layers in float", len(floats), len(layers))
    if not goal.kept(points[-1].fidelity):
        return result(min(points, key=lambda point: max(goal.missed(point.fidelity))))
    best = points[-1]
    for index in list(reversed(floats))[1:]:  # the last one was needed
        fewer = [other for other in floats if other != index]
        points.append(measure([layers[other] for other in fewer]))
        if goal.kept(points[-1].fidelity):
            floats, best = fewer, points[-1]
    return result(best)
