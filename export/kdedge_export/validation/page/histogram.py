"""Histogram of per-image map correlations as inline SVG."""

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["histogram", "lower_end"]

_WIDTH, _HEIGHT = 440, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 12, 14, 34, 34
_BINS = 40
_RUG = 24


def lower_end(values: list[float]) -> float:
    """Return the left end of an axis that covers all values and 0, as a multiple of 0.25."""
    finite = [value for value in values if math.isfinite(value)]
    return max(-1.0, math.floor(min([0.0, *finite]) * 4) / 4)


def histogram(scores: NDArray[np.float64], floor: float, low: float) -> str:
    """Render a histogram of correlations from `low` to 1, with its mean, lowest values and chance level.

    Args:
        scores: `[N]` in [-1, 1]; NaN values are ignored.
        floor: mean correlation of the maps of different images; not drawn if NaN.
        low: left end of the axis (see `lower_end`), shared by histograms to be compared.
    """
    defined = scores[~np.isnan(scores)]
    if not defined.size:
        return '<p class="none">No pair of maps could be compared.</p>'
    counts, edges = np.histogram(defined, bins=_BINS, range=(low, 1.0))
    base, room = _HEIGHT - _BOTTOM, _HEIGHT - _TOP - _BOTTOM
    bars = []
    for count, start, end in zip(counts, edges[:-1], edges[1:], strict=True):
        if count:
            # At least half a pixel, so that a single image stays visible among hundreds.
            height = max(0.5, room * count / counts.max())
            left, right = _x(start, low) + 0.5, _x(end, low) - 0.5
            shape = f'x="{left:.1f}" y="{base - height:.1f}" width="{right - left:.1f}" height="{height:.1f}"'
            bars.append(f"<rect {shape}><title>{start:.2f} to {end:.2f}: {count}</title></rect>")
    tail = np.sort(defined)[:_RUG]
    rug = "".join(f'<path d="M{_x(value, low):.1f} {base + 1}v7"/>' for value in tail)
    marks = [_mark(float(defined.mean()), low, "mean", "mean")]
    if math.isfinite(floor):
        marks.append(_mark(floor, low, "shuffled", "floor"))
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="Histogram of map correlations, '
        f'mean {defined.mean():.3f}">'
        f'<g class="bars">{"".join(bars)}</g><g class="rug">{rug}</g>{_axis(low, base)}{"".join(marks)}</svg>'
    )


def _x(value: float, low: float) -> float:
    return _LEFT + (_WIDTH - _LEFT - _RIGHT) * (value - low) / (1.0 - low)


def _axis(low: float, base: int) -> str:
    labels = "".join(
        f'<text x="{_x(tick, low):.1f}" y="{base + 22}">{f"{tick:g}".replace("-", "−")}</text>'
        for tick in np.arange(low, 1.001, 0.25)
    )
    return f'<path class="axis" d="M{_LEFT} {base + 0.5}H{_WIDTH - _RIGHT}"/><g class="ticks">{labels}</g>'


def _mark(value: float, low: float, word: str, kind: str) -> str:
    """Render a labeled vertical line; the label is on the side with more space."""
    x, base = _x(value, low), _HEIGHT - _BOTTOM
    leans_left = x > _WIDTH / 2
    anchor, shift = ("end", -5) if leans_left else ("start", 5)
    text = f"{word} {value:.3f}".replace("-", "−")
    head = _TOP - 22 if kind == "mean" else _TOP - 8
    return (
        f'<g class="{kind}"><path d="M{x:.1f} {head}V{base}"/>'
        f'<text x="{x + shift:.1f}" y="{head + 9}" text-anchor="{anchor}">{text}</text></g>'
    )
