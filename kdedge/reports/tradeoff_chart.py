"""Mixed-precision tradeoff as a chart next to the model file."""

from collections.abc import Mapping
from pathlib import Path

from matplotlib.axes import Axes

from kdedge_export.html.charts import COLORS, Chart, chart_style, number_format
from kdedge_export.quantization import Tradeoff, TradeoffPoint
from kdedge_runtime.util.files import atomic_write

__all__ = ["image_path", "write_image"]

_WIDTH, _HEIGHT = 860, 334


def image_path(model: Path) -> Path:
    """Return the path of the chart, next to the model file."""
    return model.with_suffix(".tradeoff.svg")


@chart_style()
def write_image(tradeoff: Tradeoff, path: Path) -> None:
    """Write maps and predictions over latency as one SVG without scripts, atomically."""
    every, fp32 = (*tradeoff.points, tradeoff.fp32), tradeoff.fp32.fidelity
    goal, plots = tradeoff.goal, []
    if fp32.map_pearson is not None:
        maps = {point: point.fidelity.map_pearson or 0.0 for point in every}
        plots.append(("map Pearson with fp32", maps, goal.min_map_correlation))
    labeled = fp32.accuracy is not None
    predictions = {
        point: 100 * ((point.fidelity.accuracy or 0.0) if labeled else point.fidelity.agreement) for point in every
    }
    least = None if goal.max_drop is None else predictions[tradeoff.fp32] - goal.max_drop
    plots.append(("top-1 %" if labeled else "agreement with fp32, %", predictions, least))
    chart = Chart(_WIDTH, _HEIGHT * len(plots), "Maps and predictions over latency of mixed-precision candidates")
    for number, (heading, values, bound) in enumerate(plots, start=1):
        axes = chart.axes(len(plots), 1, number)
        axes.set_title(heading, loc="left", size=12, weight="bold")
        _draw(chart, axes, tradeoff, values, bound)
    atomic_write(path, chart.svg_file())


def _draw(
    chart: Chart, axes: Axes, tradeoff: Tradeoff, values: Mapping[TradeoffPoint, float], least: float | None
) -> None:
    """Plot one quantity over latency relative to fp32, which transfers to similar machines."""
    across = {point: 1.0 / point.speedup for point in values}
    front = tradeoff.efficient
    axes.plot([across[point] for point in front], [values[point] for point in front], color=COLORS["run-0"])
    for point in values:
        is_best = point in front or point is tradeoff.fp32
        is_chosen = point == tradeoff.chosen
        color = COLORS["run-1" if is_chosen else "run-0" if is_best else "bar"]
        (dot,) = axes.plot(across[point], values[point], "o", color=color, markersize=12 if is_chosen else 7.5)
        layers = ", ".join(point.float_layers)
        chart.tag(dot, f"{len(point.float_layers)} fp32 layers: {layers}; {values[point]:.4f}")
    # Labels go on opposite sides of their points, which may be close together.
    chosen = f"chosen: {len(tradeoff.chosen.float_layers)}"
    for point, name, side, shift in ((tradeoff.fp32, "fp32", "right", -9), (tradeoff.chosen, chosen, "left", 9)):
        place = across[point], values[point]
        axes.annotate(name, place, (shift, -14), textcoords="offset points", horizontalalignment=side)
    if least is not None:
        axes.axhline(least, color=COLORS["run-1"], linewidth=1, linestyle=(0, (5, 4)))
    axes.set_xlabel("latency relative to fp32, measured alternately")
    axes.set_xlim(left=0.0)
    axes.yaxis.set_major_formatter(number_format())
