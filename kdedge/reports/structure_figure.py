"""Chart of compute and latency per layer, from input to logits."""

from dataclasses import dataclass
from itertools import groupby

from markupsafe import Markup

from kdedge_export.html.charts import COLORS, Chart, chart_style
from kdedge_export.html.text import sizes
from kdedge_export.inspection.layer_timing import LayerTimes
from kdedge_export.inspection.structure import GraphLayer, GraphStructure
from kdedge_runtime.util.counts import grid_text

__all__ = ["structure_figure"]

_WIDTH, _HEIGHT = 1180, 290
_MIN_SHARE = 0.004
"""Minimum share of the total time for a layer without MACs to be drawn."""
_CHARACTER_PX = 7.5


@dataclass(frozen=True)
class _Bar:
    layer: GraphLayer
    macs: float
    """Millions of multiply-accumulates."""
    ms: float

    @property
    def tooltip(self) -> str:
        shape = sizes(self.layer.shape)
        return f"{self.layer.name}: {self.layer.op_type} to {shape}, {self.macs:.2f} MMACs, {self.ms:.3f} ms"


@chart_style()
def structure_figure(structure: GraphStructure, times: LayerTimes) -> Markup | None:
    """Draw layers from left to right: MACs upward, milliseconds downward, with bands of equal resolution.

    Returns None without a layer that takes time.
    """
    total_ms = sum(times.by_layer_ms.values()) or 1.0
    bars = [
        _Bar(layer, layer.macs / 1e6, times.by_layer_ms.get(layer.name, 0.0))
        for layer in structure.layers
        if layer.macs or times.by_layer_ms.get(layer.name, 0.0) > _MIN_SHARE * total_ms
    ]
    if not bars:
        return None
    most_macs, most_ms = max(bar.macs for bar in bars) or 1.0, max(bar.ms for bar in bars) or 1.0
    chart = Chart(_WIDTH, _HEIGHT, "Work and time by layer")
    axes = chart.axes()
    start = 0
    for number, (label, members) in enumerate(groupby(bars, lambda bar: _resolution(bar.layer, structure))):
        end = start + len(list(members))
        axes.axvspan(start - 0.5, end - 0.5, color=COLORS["card" if number % 2 else "faint"], linewidth=0)
        if (end - start) * _WIDTH / len(bars) > _CHARACTER_PX * len(label):
            axes.text((start + end - 1) / 2, 1.05, label, ha="center", color=COLORS["soft"])
        start = end
    places = range(len(bars))
    axes.bar(places, [bar.macs / most_macs for bar in bars], 0.96, color=COLORS["run-0"])
    axes.bar(places, [-bar.ms / most_ms for bar in bars], 0.96, color=COLORS["heat"])
    hits = axes.bar(places, 2.0, 1.0, bottom=-1.0, color=COLORS["ink"], alpha=0.0)
    for bar, hit in zip(bars, hits, strict=True):
        chart.tag(hit, bar.tooltip, class_="hit")
    axes.axhline(0.0, color=COLORS["soft"], linewidth=1)
    axes.grid(visible=False)
    axes.set(xlim=(-0.5, len(bars) - 0.5), ylim=(-1.0, 1.18), xticks=[], yticks=[1.0, -1.0])
    axes.set_yticklabels([f"{most_macs:.3g}\nMMACs", f"{most_ms:.2g}\nms"])
    for scale, color, side in zip(axes.get_yticklabels(), ("run-0", "heat"), ("top", "bottom"), strict=True):
        scale.set(color=COLORS[color], verticalalignment=side)
    axes.spines.bottom.set_visible(False)
    return chart.svg()


def _resolution(layer: GraphLayer, structure: GraphStructure) -> str:
    shape = layer.shape
    if len(shape) != 4:
        return "vector"
    # Only the image itself has its channels last.
    is_image = shape[3] == 3 and shape[1:3] == tuple(structure.inputs[0][2][1:3])
    rows, columns = shape[1:3] if is_image else shape[2:]
    return "vector" if (rows, columns) == (1, 1) else grid_text(rows, columns)
