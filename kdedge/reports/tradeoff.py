"""Mixed-precision tradeoff as a table for the terminal."""

from rich import box
from rich.table import Table

from kdedge_export.quantization import Tradeoff, TradeoffPoint

__all__ = ["tradeoff_table"]

_SHOWN_NAMES = 3


def tradeoff_table(tradeoff: Tradeoff) -> Table:
    """Build a table of the Pareto-optimal mixed-precision candidates and fp32; the chosen one is marked."""
    labeled = tradeoff.fp32.fidelity.accuracy is not None
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
    predictions = fidelity.accuracy if labeled and fidelity.accuracy is not None else fidelity.agreement
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
