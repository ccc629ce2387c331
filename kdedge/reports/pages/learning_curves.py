"""Learning curves as inline SVG."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kdedge.pipelines.run_history import RunHistory
from kdedge.reports.pages.axis import Axis, linear_axis, log_axis
from kdedge.reports.pages.plot_frame import Plot
from kdedge.reports.pages.run_styles import RunStyle
from kdedge_export.html.text import escape

__all__ = ["learning_curves"]

_WIDTH, _HEIGHT = 560, 290


@dataclass(frozen=True)
class _Quantity:
    key: str
    """Key in `metrics.jsonl`."""
    title: str
    note: str
    scale: float = 1.0
    logarithmic: bool = False


_QUANTITIES = (
    _Quantity("val_top1", "Top-1, %", "share of correct predictions on the validation images", scale=100.0),
    _Quantity("val_agreement", "Agreement, %", "share of predictions equal to those of the run’s teacher", scale=100.0),
    _Quantity("val_map_pearson", "Map Pearson", "correlation with the teacher’s maps, at most 1"),
    _Quantity("val_loss", "Cross-entropy", "on the validation images, in nats; lower is better", logarithmic=True),
)


def learning_curves(runs: Sequence[RunHistory], looks: Mapping[str, RunStyle]) -> str:
    """Draw one chart per recorded quantity: one line per run over its epochs, with a dot at its best epoch.

    The training loss is omitted, because sums of different terms are not comparable.
    """
    x = linear_axis([1, *(run.epochs_done for run in runs)], ticks=8, least_step=1.0)
    drawn = []
    for quantity in _QUANTITIES:
        lines = [(number, run, points) for number, run in enumerate(runs) if (points := _points(run, quantity))]
        if lines:
            drawn.append(_figure(quantity, lines, looks, x))
    return "".join(drawn)


_Points = dict[int, float]
"""Mapping from epoch to value."""


def _points(run: RunHistory, quantity: _Quantity) -> _Points:
    recorded = ((int(epoch["epoch"]), epoch.get(quantity.key)) for epoch in run.epochs)
    return {
        epoch: quantity.scale * value
        for epoch, value in recorded
        if value is not None and math.isfinite(value) and (value > 0 or not quantity.logarithmic)
    }


def _figure(
    quantity: _Quantity, lines: Sequence[tuple[int, RunHistory, _Points]], looks: Mapping[str, RunStyle], x: Axis
) -> str:
    values = [value for *_, points in lines for value in points.values()]
    plot = Plot(x, log_axis(values) if quantity.logarithmic else linear_axis(values), _WIDTH, _HEIGHT)
    curves = "".join(_curve(number, run, points, looks[run.name], plot) for number, run, points in lines)
    drawing = plot.drawn(curves, f"{quantity.title} over epochs", "epoch")
    return f"<figure><figcaption>{quantity.title} <small>{quantity.note}</small></figcaption>{drawing}</figure>"


def _curve(number: int, run: RunHistory, points: _Points, look: RunStyle, plot: Plot) -> str:
    places = {epoch: plot.place(epoch, value) for epoch, value in points.items()}
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places.values())
    best = places.get(int((run.best or {}).get("epoch", 0)))
    dot = "" if best is None else f'<circle cx="{best[0]:.1f}" cy="{best[1]:.1f}" r="3.2"/>'
    return (
        f'<g class="curve" data-run="{number}" style="{look.css}"><title>{escape(run.name)}</title>'
        f'<path class="line" d="M{path}"/>{dot}</g>'
    )
