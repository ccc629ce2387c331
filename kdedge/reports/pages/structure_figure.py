"""Compute and latency per layer, from input to logits, as one SVG."""

from dataclasses import dataclass

from kdedge_export.html.text import escape
from kdedge_export.inspection.layer_timing import LayerTimes
from kdedge_export.inspection.structure import GraphLayer, GraphStructure

__all__ = ["structure_svg"]

_WIDTH, _HALF, _TOP, _LEFT = 1180, 120, 26, 52
_LEAST_SHARE = 0.004
"""Minimum share of the total time for a layer without MACs to be drawn."""


@dataclass(frozen=True)
class _Bar:
    layer: GraphLayer
    macs: float
    ms: float


def structure_svg(structure: GraphStructure, times: LayerTimes) -> str:
    """Draw layers from left to right: MACs upward, milliseconds downward, with bands of equal resolution."""
    total_ms = sum(times.by_layer_ms.values()) or 1.0
    bars = [
        _Bar(layer, layer.macs / 1e6, times.by_layer_ms.get(layer.name, 0.0))
        for layer in structure.layers
        if layer.macs or times.by_layer_ms.get(layer.name, 0.0) > _LEAST_SHARE * total_ms
    ]
    if not bars:
        return ""
    step = (_WIDTH - _LEFT) / len(bars)
    most_macs, most_ms = max(bar.macs for bar in bars) or 1.0, max(bar.ms for bar in bars) or 1.0
    middle = _TOP + _HALF
    drawn = []
    for at, bar in enumerate(bars):
        x, width = _LEFT + at * step, max(step - 1.5, 0.8)
        up, down = _HALF * bar.macs / most_macs, _HALF * bar.ms / most_ms
        shape = "×".join("?" if size is None else str(size) for size in bar.layer.shape)
        words = f"{bar.layer.name}: {bar.layer.op_type} to {shape}, {bar.macs:.2f} MMACs, {bar.ms:.3f} ms"
        drawn.append(
            f'<g><title>{escape(words)}</title><rect class="hit" x="{x:.1f}" y="{_TOP}" width="{step:.1f}" '
            f'height="{2 * _HALF}"/><rect class="macs" x="{x:.1f}" y="{middle - up:.1f}" width="{width:.1f}" '
            f'height="{up:.1f}"/><rect class="ms" x="{x:.1f}" y="{middle + 1}" width="{width:.1f}" '
            f'height="{down:.1f}"/></g>'
        )
    return (
        f'<svg class="structure" viewBox="0 0 {_WIDTH} {_TOP + 2 * _HALF + 8}" role="img" '
        'aria-label="Work and time by layer">'
        f"{_bands(bars, step)}{''.join(drawn)}"
        f'<path class="axis" d="M{_LEFT} {middle}H{_WIDTH}"/>'
        f'<text class="macs" x="{_LEFT - 8}" y="{_TOP + 10}" text-anchor="end">{most_macs:.3g}</text>'
        f'<text class="macs" x="{_LEFT - 8}" y="{_TOP + 24}" text-anchor="end">MMACs</text>'
        f'<text class="ms" x="{_LEFT - 8}" y="{middle + _HALF - 6}" text-anchor="end">{most_ms:.2g}</text>'
        f'<text class="ms" x="{_LEFT - 8}" y="{middle + _HALF + 8}" text-anchor="end">ms</text></svg>'
    )


def _bands(bars: list[_Bar], step: float) -> str:
    runs: list[tuple[str, int, int]] = []
    for at, bar in enumerate(bars):
        label = _resolution(bar.layer)
        if runs and runs[-1][0] == label:
            runs[-1] = (label, runs[-1][1], at + 1)
        else:
            runs.append((label, at, at + 1))
    drawn = []
    for number, (label, start, end) in enumerate(runs):
        x, width = _LEFT + start * step, (end - start) * step
        kind = "band" if number % 2 == 0 else "band odd"
        drawn.append(f'<rect class="{kind}" x="{x:.1f}" y="{_TOP}" width="{width:.1f}" height="{2 * _HALF}"/>')
        if width > 7 * len(label):
            drawn.append(
                f'<text class="size" x="{x + width / 2:.1f}" y="{_TOP - 9}" text-anchor="middle">{label}</text>'
            )
    return "".join(drawn)


def _resolution(layer: GraphLayer) -> str:
    if len(layer.shape) != 4:
        return "vector"
    rows, columns = layer.shape[1:3] if layer.shape[3] == 3 else layer.shape[2:]
    return "vector" if (rows, columns) == (1, 1) else f"{columns or '?'} × {rows or '?'}"
