"""Layer attribution of a prediction, from coarse to fine, as one figure."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from kdedge.pipelines.model_inspection import ImageInspection
from kdedge_export.html.charts import COLORS, Chart, chart_style, font_families
from kdedge_export.html.thumbnails import at_display_size, overlaid
from kdedge_export.inspection.layer_attribution import AttributionStage, Channel
from kdedge_runtime.util.arrays import Floats, Pixels
from kdedge_runtime.util.counts import grid_text

__all__ = ["decision_figure"]

_COLUMN, _GAP, _TOP, _MARGIN = 212, 30, 42, 12
_MINI, _MINIS = 64, 3
"""Side of a channel's map in CSS pixels, and number of them in a row."""
_LINE = 19
_BRIGHT = 0.99
_FOR, _AGAINST = np.array([176, 24, 127]), np.array([23, 103, 179])


@chart_style()
def decision_figure(seen: ImageInspection) -> Chart:
    """Draw the image, then one column per stage: its map as an overlay, and its strongest channels."""
    stages = seen.decision.stages
    notes = [_notes(stage) for stage in stages]
    y_channels = _TOP + _COLUMN + 32 + _LINE * max(map(len, notes), default=0)
    chart = Chart(
        2 * _MARGIN + (len(stages) + 1) * (_COLUMN + _GAP) - _GAP,
        _MARGIN + y_channels + 2 * (_MINI + 26),
        f"Attribution of the prediction for {seen.name} at {len(stages)} stages",
        layout=None,
    )
    canvas = _Canvas(chart, chart.canvas())
    _draw_image(canvas, seen)
    for at, (stage, lines) in enumerate(zip(stages, notes, strict=True), start=1):
        x = _MARGIN + at * (_COLUMN + _GAP)
        canvas.text(x, _TOP - 16, f"{grid_text(*stage.positions)} map", size=14, weight="bold")
        canvas.image(
            x, _TOP, _COLUMN, overlaid(seen.pixels, _readable(stage.evidence.saliency_map), stage.evidence.shift)
        )
        half, count = stage.evidence.channels_for(0.5), len(stage.evidence.shares)
        canvas.text(x, _TOP + _COLUMN + 20, f"{half} of {count} channels carry half of it")
        for number, line in enumerate(lines, start=1):
            note = canvas.text(x, _TOP + _COLUMN + 20 + _LINE * number, _fit(line, 34), size=11, color=COLORS["soft"])
            chart.tag(note, line)
        for number, channel in enumerate(stage.evidence.channels[: 2 * _MINIS]):
            row, column = divmod(number, _MINIS)
            _draw_channel(canvas, channel, x + (_MINI + 10) * column, y_channels + (_MINI + 26) * row)
        if at > 1:
            arrow = {"arrowstyle": "->", "color": COLORS["soft"], "linewidth": 1.5, "shrinkA": 0, "shrinkB": 0}
            middle = _TOP + _COLUMN / 2
            canvas.axes.annotate("", (x - 6, middle), (x - _GAP + 6, middle), arrowprops=arrow)
    return chart


@dataclass(frozen=True)
class _Canvas:
    chart: Chart
    axes: Axes
    """Axes in CSS pixels from the top left corner."""

    def text(self, x: float, y: float, text: str, **style: Any) -> Text:
        return self.axes.text(x, y, text, va="baseline", family=font_families(text), **style)

    def image(self, x: float, y: float, side: float, pixels: Pixels) -> None:
        self.axes.imshow(pixels, extent=(x, x + side, y + side, y), aspect="auto")


def _draw_image(canvas: _Canvas, seen: ImageInspection) -> None:
    decision, y = seen.decision, _TOP + _COLUMN + 20
    canvas.text(_MARGIN, _TOP - 16, "image", size=14, weight="bold")
    canvas.image(_MARGIN, _TOP, _COLUMN, at_display_size(seen.pixels))
    canvas.text(_MARGIN, y, f"explained: {_fit(seen.labels[decision.explained_class], 22)}", color=COLORS["soft"])
    for at, (index, score) in enumerate(decision.ranking):
        line = f"{_fit(seen.labels[index], 26)}  {seen.score_text(score)}"
        canvas.text(_MARGIN, y + 24 + _LINE * at, line, color=COLORS["soft" if at else "ink"])


def _notes(stage: AttributionStage) -> list[str]:
    """Describe how the attribution was computed, one item per line."""
    rows, columns = stage.evidence.saliency_map.shape
    lines = []
    if stage.attention is not None:
        lines.append(f"attention {stage.attention[0]} of {stage.attention[1]}")
    if stage.why_blanked is not None:
        lines.append(f"{grid_text(rows, columns)} ablations")
    elif (rows, columns) != stage.positions:
        lines.append(f"evaluated at {grid_text(rows, columns)}")
    if stage.evidence.beside is not None:
        lines.append(f"{stage.evidence.beside:.0%} in non-patch tokens")
    return [*lines, stage.tensor]


def _readable(saliency_map: Floats) -> Floats:
    """Clip a map at its 99th percentile, because single positions dominate high-resolution maps."""
    return np.minimum(saliency_map, np.quantile(saliency_map, _BRIGHT)).astype(np.float32)


def _draw_channel(canvas: _Canvas, channel: Channel, x: float, y: float) -> None:
    sign = "+" if channel.evidence >= 0 else "−"
    ground = canvas.axes.add_patch(Rectangle((x, y), _MINI, _MINI, color=COLORS["faint"], linewidth=0, zorder=-1))
    canvas.image(x, y, _MINI, _signed(channel.saliency_map))
    words = f"{channel.index} {sign}{channel.share:.1%}"
    caption = canvas.text(x, y + _MINI + 14, words, size=10, color=COLORS["soft"])
    tooltip = f"channel {channel.index}: {channel.evidence:+.3g} of the logit, {channel.share:.1%} of the attribution"
    for artist in (ground, caption):
        canvas.chart.tag(artist, tooltip)


def _signed(evidence: Floats) -> Pixels:
    """Render a map `[h, w]` as RGBA: magenta for positive, blue for negative, transparent for zero attribution."""
    strongest = float(np.abs(evidence).max()) or 1.0
    strength = np.abs(evidence) / strongest
    color = np.where((evidence >= 0)[..., None], _FOR, _AGAINST)
    rendered: Pixels = np.concatenate([color, np.round(255 * strength)[..., None]], axis=2).astype(np.uint8)
    return rendered


def _fit(text: str, most: int) -> str:
    """Shorten text from the left, since the end of a long name is the most specific."""
    return text if len(text) <= most else f"…{text[1 - most :]}"
