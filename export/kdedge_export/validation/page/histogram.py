"""Histogram of per-sample map correlations."""

import math

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from kdedge_export.html.charts import COLORS, Chart, chart_style

__all__ = ["histogram", "lower_end"]

_WIDTH, _HEIGHT = 440, 190
_BINS = 40
_RUG = 24
"""Number of the lowest values that are marked one by one."""


def lower_end(values: list[float]) -> float:
    """Return the left end of an axis that covers all values and 0, as a multiple of 0.25."""
    finite = [value for value in values if math.isfinite(value)]
    return max(-1.0, math.floor(min([0.0, *finite]) * 4) / 4)


@chart_style()
def histogram(scores: NDArray[np.float64], floor: float, low: float) -> Markup | None:
    """Draw a histogram of correlations from `low` to 1, with its mean, lowest values and chance level.

    Args:
        scores: `[N]` in [-1, 1]; NaN values are ignored.
        floor: mean correlation of the maps of different samples; not drawn if NaN.
        low: left end of the axis (see `lower_end`), shared by histograms to be compared.

    Returns:
        SVG, or None if no score is defined.
    """
    defined = scores[~np.isnan(scores)]
    if not defined.size:
        return None
    mean = float(defined.mean())
    chart = Chart(_WIDTH, _HEIGHT, f"Histogram of map correlations, mean {mean:.3f}")
    axes = chart.axes()
    counts, edges = np.histogram(defined, bins=_BINS, range=(low, 1.0))
    for count, start, end in zip(counts, edges[:-1], edges[1:], strict=True):
        if count:
            # A single sample stays visible among hundreds.
            height = max(count, 0.004 * counts.max())
            (bar,) = axes.bar(start, height, 0.9 * (end - start), align="edge", color=COLORS["bar"])
            chart.tag(bar, f"{start:.2f} to {end:.2f}: {count}")
    top = 1.3 * counts.max()
    axes.vlines(np.sort(defined)[:_RUG], -0.07 * top, -0.015 * top, COLORS["heat"], linewidth=1)
    axes.set(xlim=(low, 1.0), ylim=(-0.08 * top, top), xticks=np.arange(low, 1.001, 0.25), yticks=[])
    axes.axhline(0.0, color=COLORS["soft"], linewidth=1)
    axes.spines.bottom.set_visible(False)
    for value, word, color, height in ((mean, "mean", "ink", 1.0), (floor, "shuffled", "heat", 0.88)):
        if not math.isfinite(value):
            continue
        dashes = (4, 3) if word == "shuffled" else ()
        axes.plot([value, value], [0.0, height * top], color=COLORS[color], linewidth=1.5, dashes=dashes or (1, 0))
        # The label is on the side with more space.
        leans_left = value > (low + 1.0) / 2
        axes.annotate(
            f"{word} {value:.3f}".replace("-", "−"),
            (value, height * top),
            xytext=(-5 if leans_left else 5, 0),
            textcoords="offset points",
            ha="right" if leans_left else "left",
            va="top",
            color=COLORS[color],
            weight="bold" if word == "mean" else "normal",
        )
    return chart.svg()
