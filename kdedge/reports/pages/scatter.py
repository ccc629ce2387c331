"""Scatter plot of accuracy against teacher agreement, as inline SVG."""

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import NamedTuple, TypeAlias

from kdedge.pipelines.run_history import RunHistory
from kdedge.pipelines.seed_groups import SeedGroup
from kdedge.reports.pages.axis import linear_axis
from kdedge.reports.pages.plot_frame import Plot
from kdedge.reports.pages.point_labels import Box, free_place
from kdedge.reports.pages.run_styles import RunStyle, mark
from kdedge.reports.run_figures import Column, figure_of
from kdedge_export.html.text import escape

__all__ = ["Scatter", "scatter"]

_WIDTH, _HEIGHT = 900, 420
_TOP1, _MAPS, _AGREEMENT = (Column("val", "best", key) for key in ("top1", "map_pearson", "agreement"))
_POINT_PX = 7
"""Half the size of a point in px."""
_Point: TypeAlias = tuple[float, float]
"""Coordinates (x, y)."""


class Scatter(NamedTuple):
    """Scatter plot and the quantity on its horizontal axis."""

    svg: str
    over: str
    left_out: tuple[str, ...]
    """Names of runs without that quantity."""


def scatter(groups: Sequence[SeedGroup], looks: Mapping[str, RunStyle]) -> Scatter | None:
    """Plot top-1 over map Pearson, one point per run.

    Agreement replaces map Pearson if fewer than two runs have maps. Returns None if fewer than two have agreement. The
    runs of a group share a label. A cross spans one standard deviation to each side of their mean.
    """
    runs = [run for group in groups for run in group.runs]
    for over in (_MAPS, _AGREEMENT):
        points = {run.name: point for run in runs if (point := _point(run, over)) is not None}
        if len(points) > 1:
            return _drawn(groups, looks, points, over)
    return None


def _drawn(
    groups: Sequence[SeedGroup], looks: Mapping[str, RunStyle], points: Mapping[str, _Point], over: Column
) -> Scatter:
    x = linear_axis([point[0] for point in points.values()], ticks=8)
    plot = Plot(x, linear_axis([point[1] for point in points.values()]), _WIDTH, _HEIGHT)
    places = {name: plot.place(*point) for name, point in points.items()}
    taken = [_around([place]) for place in places.values()]
    crosses, marks, labels = [], [], []
    for group in groups:
        names = [run.name for run in group.runs if run.name in points]
        if names:
            color = looks[names[0]]
            crosses.append(_cross([points[name] for name in names], color, plot))
            marks += [mark(looks[name], *places[name], escape(name)) for name in names]
            labels.append(_label(group.name, [places[name] for name in names], color, taken))
    words = "map Pearson" if over is _MAPS else "agreement"
    title = f"{words} with the teacher{', %' * (over is _AGREEMENT)} (across), top-1, % (up)"
    svg = plot.drawn("".join([*crosses, *marks, *labels]), f"Top-1 over {words}", title)
    left_out = tuple(run.name for group in groups for run in group.runs if run.name not in points)
    return Scatter(svg, words, left_out)


def _point(run: RunHistory, over: Column) -> _Point | None:
    x, y = figure_of(run, over), figure_of(run, _TOP1)
    return None if x is None or y is None else (x if over is _MAPS else 100 * x, 100 * y)


def _cross(points: Sequence[_Point], look: RunStyle, plot: Plot) -> str:
    if len(points) < 2:
        return ""
    (x, y), (dx, dy) = map(fmean, zip(*points, strict=True)), map(stdev, zip(*points, strict=True))
    (left, middle_y), (right, _) = plot.place(x - dx, y), plot.place(x + dx, y)
    (middle_x, low), (_, high) = plot.place(x, y - dy), plot.place(x, y + dy)
    lines = f"M{left:.1f} {middle_y:.1f}H{right:.1f}M{middle_x:.1f} {low:.1f}V{high:.1f}"
    return f'<path class="cross" style="--run:var(--run-{look.color})" d="{lines}"/>'


def _label(text: str, places: Sequence[_Point], look: RunStyle, taken: list[Box]) -> str:
    left, top, _, bottom = free_place(text, _around(places), taken, (44.0, 4.0, _WIDTH - 4.0, _HEIGHT - 40.0))
    return (
        f'<text class="label" style="--run:var(--run-{look.color})" x="{left:.1f}" y="{(top + bottom) / 2 + 4:.1f}">'
        f"{escape(text)}</text>"
    )


def _around(places: Sequence[_Point]) -> Box:
    xs, ys = zip(*places, strict=True)
    return (min(xs) - _POINT_PX, min(ys) - _POINT_PX, max(xs) + _POINT_PX, max(ys) + _POINT_PX)
