"""Learning curves of runs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from markupsafe import Markup
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from kdedge.pipelines.run_history import RunHistory
from kdedge.reports.run_figures import common_unit
from kdedge.reports.run_styles import RunStyle
from kdedge_export.html.charts import COLORS, Chart, chart_style, number_format
from kdedge_runtime.tasks import TASKS

__all__ = ["LearningCurves", "learning_curves"]

_WIDTH, _HEIGHT = 560, 290
_MIN_LOG_RATIO = 4.0
"""Smallest ratio of largest to smallest value for a logarithmic axis, which has ticks at 1, 2 and 5."""
_Points: TypeAlias = dict[int, float]
"""Mapping from epoch to value."""


@dataclass(frozen=True)
class _Quantity:
    key: str
    """Key in `metrics.jsonl`."""
    title: str
    note: str
    scale: float = 1.0
    logarithmic: bool = False
    of_classes: bool = False
    """True if it is this quantity for tasks with classes only."""
    in_target_unit: bool = False
    """True if its unit is that of the target."""

    def texts(self, unit: str | None) -> tuple[str, str]:
        """Return title and note; `unit` is that of the target, or None."""
        if not self.in_target_unit:
            return self.title, self.note
        if unit is None:
            return self.title, f"in the unit of the target; {self.note}"
        return f"{self.title}, {unit}", self.note


@dataclass(frozen=True)
class LearningCurves:
    """Chart of one quantity over the epochs."""

    title: str
    note: str
    svg: Markup


_QUANTITIES = (
    _Quantity("val_top1", "Top-1, %", "share of correct predictions on the validation samples", scale=100.0),
    _Quantity("val_r2", "R²", "explained share of the variance of the validation samples, at most 1"),
    _Quantity("val_mae", "Mean absolute error", "lower is better", in_target_unit=True),
    _Quantity("val_agreement", "Agreement, %", "with the predictions of the run’s teacher", scale=100.0),
    _Quantity("val_map_pearson", "Map Pearson", "correlation with the teacher’s maps, at most 1"),
    _Quantity(
        "val_loss",
        "Cross-entropy",
        "on the validation samples, in nats; lower is better",
        logarithmic=True,
        of_classes=True,
    ),
)


def learning_curves(runs: Sequence[RunHistory], styles: Mapping[str, RunStyle]) -> list[LearningCurves]:
    """Draw one chart per recorded quantity: one line per run over its epochs, with a dot at its best epoch.

    The training loss is omitted, because sums of different terms are not comparable.
    """
    charts, unit = [], common_unit(runs)
    for quantity in _QUANTITIES:
        of_runs = [run for run in runs if TASKS[run.record.task].has_classes or not quantity.of_classes]
        lines = {runs.index(run): points for run in of_runs if (points := _points(run, quantity))}
        if lines:
            charts.append(LearningCurves(*quantity.texts(unit), _chart(quantity, lines, runs, styles)))
    return charts


def _points(run: RunHistory, quantity: _Quantity) -> _Points:
    recorded = ((int(epoch["epoch"]), epoch.get(quantity.key)) for epoch in run.epochs)
    return {
        epoch: quantity.scale * value
        for epoch, value in recorded
        if value is not None and math.isfinite(value) and (value > 0 or not quantity.logarithmic)
    }


@chart_style()
def _chart(
    quantity: _Quantity, lines: Mapping[int, _Points], runs: Sequence[RunHistory], styles: Mapping[str, RunStyle]
) -> Markup:
    chart = Chart(_WIDTH, _HEIGHT, f"{quantity.title} over epochs")
    axes = chart.axes()
    for number, points in lines.items():
        run, style = runs[number], styles[runs[number].name]
        best = int((run.best or {}).get("epoch", 0))
        (line,) = axes.plot(
            list(points),
            list(points.values()),
            color=COLORS[style.color_name],
            linestyle=(0, style.dashes) if style.dashes else "-",
            marker="o",
            markevery=[list(points).index(best)] if best in points else [],
            markerfacecolor=COLORS["paper"],
            markeredgewidth=2,
        )
        chart.tag(line, run.name, class_="curve", data_run=str(number))
    axes.set_xlabel("epoch")
    axes.set_xlim(0.5, max(epoch for points in lines.values() for epoch in points) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(number_format())
    values = [value for points in lines.values() for value in points.values()]
    if quantity.logarithmic and max(values) > _MIN_LOG_RATIO * min(values):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter("")
    return chart.svg()
