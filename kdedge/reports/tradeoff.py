"""Mixed-precision tradeoff: a table for the terminal, and a chart next to the model file."""

from pathlib import Path

from rich import box
from rich.table import Table

from kdedge.reports.pages.axis import linear_axis
from kdedge.reports.pages.plot_frame import Plot
from kdedge_export.html.text import escape
from kdedge_export.quantization import Tradeoff, TradeoffPoint
from kdedge_runtime.util.files import atomic_write

__all__ = ["image_path", "tradeoff_table", "write_image"]

_WIDTH, _HEIGHT, _GAP = 860, 300, 34
_SHOWN_NAMES = 3
_STYLE = """svg { font: 12px system-ui, sans-serif; background: #fff; }
.ground path { stroke: #ddd; } text { fill: #555; } .heading { font-weight: 600; fill: #222; }
.tried { fill: #b9c7d8; } .front { fill: none; stroke: #1767b3; stroke-width: 2; } .best { fill: #1767b3; }
.chosen { fill: #cf4a0a; } .goal { stroke: #cf4a0a; stroke-dasharray: 5 4; } .named { fill: #222; }"""


def tradeoff_table(tradeoff: Tradeoff) -> Table:
    """Build a table of the Pareto-optimal mixed-precision candidates and fp32; the chosen one is marked."""
    labeled = tradeoff.fp32.fidelity.top1 is not None
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("")
    for heading in ("fp32 layers", "size MB", "latency ms", "speed ×", "top-1 %" if labeled else "agreement %"):
        table.add_column(heading, justify="right")
    table.add_column("map Pearson", justify="right")
    table.add_column("kept in fp32")
    rows = sorted({*tradeoff.efficient, tradeoff.points[0], tradeoff.chosen}, key=lambda point: -point.speedup)
    for point in [*rows, tradeoff.fp32]:
        chosen = point == tradeoff.chosen
        table.add_row("→" if chosen else "", *_positions(point, labeled), style="bold" if chosen else None)
    return table


def _positions(point: TradeoffPoint, labeled: bool) -> list[str]:
    fidelity, names = point.fidelity, point.float_layers
    predictions = fidelity.top1 if labeled and fidelity.top1 is not None else fidelity.agreement
    shown = ", ".join(names[:_SHOWN_NAMES]) + (f", … {len(names)}" if len(names) > _SHOWN_NAMES else "")
    return [
        str(len(names)),
        f"{point.bytes / 1e6:.2f}",
        f"{point.latency_ms:.2f}",
        f"{point.speedup:.2f}",
        f"{100 * predictions:.2f}",
        "" if fidelity.map_pearson is None else f"{fidelity.map_pearson:.4f}",
        shown,
    ]


def image_path(model: Path) -> Path:
    """Return the path of the chart, next to the model file."""
    return model.with_suffix(".tradeoff.svg")


def write_image(tradeoff: Tradeoff, path: Path) -> None:
    """Write maps and predictions over latency as one SVG with embedded styles and no scripts."""
    charts = []
    if tradeoff.fp32.fidelity.map_pearson is not None:
        maps = {point: point.fidelity.map_pearson or 0.0 for point in (*tradeoff.points, tradeoff.fp32)}
        charts.append(_chart(tradeoff, "map Pearson with fp32", maps, tradeoff.goal.min_map_correlation))
    labeled = tradeoff.fp32.fidelity.top1 is not None
    predictions = {
        point: 100 * (point.fidelity.top1 or 0.0 if labeled else point.fidelity.agreement)
        for point in (*tradeoff.points, tradeoff.fp32)
    }
    least = None if tradeoff.goal.max_drop is None else predictions[tradeoff.fp32] - tradeoff.goal.max_drop
    charts.append(_chart(tradeoff, "top-1 %" if labeled else "agreement with fp32, %", predictions, least))
    height = (_HEIGHT + _GAP) * len(charts)
    parts = [
        f'<g transform="translate(0 {number * (_HEIGHT + _GAP)})">{chart}</g>' for number, chart in enumerate(charts)
    ]
    atomic_write(
        path,
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}">'
        f"<style>{_STYLE}</style>{''.join(parts)}</svg>\n",
    )


def _chart(tradeoff: Tradeoff, heading: str, values: dict[TradeoffPoint, float], least: float | None) -> str:
    """Plot one quantity over latency relative to fp32, which transfers to similar machines."""
    across = {point: 1.0 / point.speedup for point in values}
    plot = Plot(
        linear_axis([0.0, *across.values()], ticks=8),
        linear_axis([*values.values(), *([] if least is None else [least])]),
        _WIDTH,
        _HEIGHT,
    )

    def dot(point: TradeoffPoint, kind: str, radius: float) -> str:
        x, y = plot.place(across[point], values[point])
        told = f"{len(point.float_layers)} fp32 layers: {', '.join(point.float_layers)}; {values[point]:.4f}"
        title = f"<title>{escape(told)}</title>"
        return f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}">{title}</circle>'

    front = [plot.place(across[point], values[point]) for point in tradeoff.efficient]
    content = [dot(point, "tried", 3.5) for point in tradeoff.points]
    content.append(f'<polyline class="front" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in front)}"/>')
    content += [dot(point, "best", 4) for point in tradeoff.efficient]
    content += [dot(tradeoff.fp32, "best", 4), dot(tradeoff.chosen, "chosen", 6)]
    chosen = f"chosen: {len(tradeoff.chosen.float_layers)}"
    # Labels go on opposite sides of their points, which may be close together.
    for point, name, anchor, dx in ((tradeoff.fp32, "fp32", "end", -9), (tradeoff.chosen, chosen, "start", 9)):
        x, y = plot.place(across[point], values[point])
        content.append(f'<text class="named" x="{x + dx:.1f}" y="{y + 14:.1f}" text-anchor="{anchor}">{name}</text>')
    if least is not None:
        (left, y), (right, _) = plot.place(plot.x.low, least), plot.place(plot.x.high, least)
        content.append(f'<path class="goal" d="M{left:.1f} {y:.1f}H{right:.1f}"/>')
    drawn = plot.drawn("".join(content), heading, "latency relative to fp32, measured alternately")
    sized = drawn.replace("<svg ", f'<svg y="20" width="{_WIDTH}" height="{_HEIGHT}" ', 1)
    return f'<text class="heading" x="8" y="14">{escape(heading)}</text>{sized}'
