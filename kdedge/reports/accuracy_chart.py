"""Chart of accuracy against teacher agreement."""

from collections.abc import Mapping, Sequence
from itertools import product
from statistics import fmean, stdev
from typing import NamedTuple, TypeAlias

from markupsafe import Markup
from matplotlib.ticker import MaxNLocator

from kdedge.pipelines.run_history import RunHistory
from kdedge.pipelines.seed_groups import SeedGroup
from kdedge.reports.run_figures import ACCURACIES, Column, figure_of
from kdedge.reports.run_styles import RunStyle
from kdedge_export.html.charts import COLORS, Chart, chart_style, number_format

__all__ = ["AccuracyChart", "accuracy_chart"]

_WIDTH, _MIN_HEIGHT, _LEGEND_ROW = 960, 420, 19
_MAX_CHARACTERS = 40
"""Longest name in the legend; the whole name is in the tooltip."""
_MAPS, _AGREEMENT = (Column("val", "best", key) for key in ("map_pearson", "agreement"))
_TITLES = {"top1": "top-1, %", "r2": "R²"}
_Point: TypeAlias = tuple[float, float]
"""Coordinates (x, y)."""


class AccuracyChart(NamedTuple):
    """Chart of accuracy, and the quantity on its horizontal axis."""

    svg: Markup
    over: str
    left_out: tuple[str, ...]
    """Names of runs without that quantity."""


def accuracy_chart(groups: Sequence[SeedGroup], styles: Mapping[str, RunStyle]) -> AccuracyChart | None:
    """Plot top-1 or R² over map Pearson, one point per run.

    Agreement replaces map Pearson if fewer than two runs have maps. Returns None if fewer than two have agreement. The
    runs of a group share a legend entry. A cross spans one standard deviation to each side of their mean.
    """
    runs = [run for group in groups for run in group.runs]
    for over, accuracy in product((_MAPS, _AGREEMENT), ACCURACIES):
        points = {run.name: point for run in runs if (point := _point(run, over, accuracy)) is not None}
        if len(points) > 1:
            left_out = tuple(run.name for run in runs if run.name not in points)
            words = "map Pearson" if over is _MAPS else "agreement"
            unit = "" if over is _MAPS else ", %"
            return AccuracyChart(
                _chart(groups, styles, points, (f"{words} with the teacher{unit}", _TITLES[accuracy])), words, left_out
            )
    return None


def _point(run: RunHistory, over: Column, accuracy: str) -> _Point | None:
    x, y = figure_of(run, over), figure_of(run, Column("val", "best", accuracy))
    if x is None or y is None:
        return None
    return x if over is _MAPS else 100 * x, 100 * y if accuracy == "top1" else y


@chart_style()
def _chart(
    groups: Sequence[SeedGroup], styles: Mapping[str, RunStyle], points: Mapping[str, _Point], titles: tuple[str, str]
) -> Markup:
    shown = [(group, names) for group in groups if (names := [run.name for run in group.runs if run.name in points])]
    chart = Chart(_WIDTH, max(_MIN_HEIGHT, _LEGEND_ROW * len(shown) + 30), " over ".join(titles[::-1]))
    axes = chart.axes()
    handles = []
    for group, names in shown:
        color = COLORS[styles[names[0]].color_name]
        if len(names) > 1:
            xs, ys = zip(*(points[name] for name in names), strict=True)
            axes.errorbar(fmean(xs), fmean(ys), xerr=stdev(xs), yerr=stdev(ys), color=color, elinewidth=1)
        for name in names:
            (mark,) = axes.plot(
                *points[name],
                styles[name].marker,
                color=color,
                markersize=9,
                label=_clipped(group.name),
            )
            chart.tag(mark, name, class_="mark")
            if name == names[0]:
                handles.append(mark)
    axes.set(xlabel=titles[0], ylabel=titles[1])
    axes.xaxis.set_major_locator(MaxNLocator(8))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(number_format())
    chart.figure.legend(handles=handles, loc="outside right upper", labelcolor="markeredgecolor", frameon=False)
    return chart.svg()


def _clipped(name: str) -> str:
    """Shorten a name from the left, since the end of a long name is the most specific."""
    return name if len(name) <= _MAX_CHARACTERS else f"…{name[1 - _MAX_CHARACTERS :]}"
