"""Plots of time series: one line per channel, with its row of the saliency map behind it."""

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from kdedge_runtime.drawing.caption import Caption, append_caption
from kdedge_runtime.drawing.fonts import find_font, load_font
from kdedge_runtime.drawing.overlay import OPACITY, paste_heat
from kdedge_runtime.util.arrays import Floats, Pixels

if TYPE_CHECKING:
    from kdedge_runtime.modalities.timeseries import TimeseriesInput

__all__ = ["draw_series", "plot_size"]

_WIDTH_PX = 640
_ROW_PX, _MIN_ROW_PX, _MAX_PX = 240, 24, 720
"""Height of a channel, its minimum, and the height up to which channels are shrunk, in pixels."""
_GAP_PX = 4
_INK, _PAPER, _RULE = (24, 26, 36), (250, 250, 252), (214, 216, 226)
_NAME = (92, 96, 114)
_MIN_SIZE_PX = 10
_SPREAD = 4.0
"""Standard deviations between the lower and the upper edge of a plot, at least."""


def plot_size(channels: int) -> tuple[int, int]:
    """Return the width of a plot and the height of one channel in pixels."""
    return _WIDTH_PX, max(_MIN_ROW_PX, min(_ROW_PX, _MAX_PX // channels))


def draw_series(
    sample: Floats,
    spec: "TimeseriesInput",
    heat: Floats | None = None,
    caption: Caption | None = None,
    *,
    opacity: float = OPACITY,
    shift: tuple[float, float] = (0.0, 0.0),
) -> Pixels:
    """Plot the channels of a window below one another, on the scale of the training windows.

    Values beyond four standard deviations widen the scale of their channel.

    Args:
        sample: window `[T, C]`; values that are not finite leave gaps.
        spec: input with the names, units, means and standard deviations of the channels.
        heat: heat map `[C, w]` in [0, 1], drawn behind the line of each channel; a map of another height covers the
            whole plot; None for none.
        caption: caption below the plot; None for none.
        opacity: opacity at full heat, in [0, 1].
        shift: offset of the heat map in map positions (see `kdedge_runtime.drawing.heatmap.MapDisplay`).

    Returns:
        uint8 RGB `[H, 640, 3]`.
    """
    channels = len(spec.channels)
    width, row = plot_size(channels)
    pitch = row + _GAP_PX
    canvas = Image.new("RGB", (width, channels * pitch - _GAP_PX), _PAPER)
    if heat is not None and len(heat) == channels:
        for index in range(channels):  # by channel, because heat does not continue from one channel to the next
            box = (0, index * pitch, width, index * pitch + row)
            paste_heat(canvas, heat[index : index + 1], box, opacity, (shift[0], 0.0))
    elif heat is not None:
        paste_heat(canvas, heat, (0, 0, width, canvas.height), opacity, shift)
    draw = ImageDraw.Draw(canvas)
    for index, name in enumerate(spec.channels):
        top = index * pitch
        if index:
            draw.rectangle((0, top - _GAP_PX, width, top - 1), fill=_RULE)
        _draw_line(draw, sample[:, index], spec.mean[index], spec.std[index], top, row, width)
        _draw_name(draw, f"{name} [{spec.units[index]}]" if spec.units else name, top, row)
    if caption is not None:
        canvas = append_caption(canvas, caption)
    return np.asarray(canvas)


def _draw_line(
    draw: ImageDraw.ImageDraw, values: Floats, mean: float, std: float, top: int, row: int, width: int
) -> None:
    standardized = (values.astype(np.float64) - mean) / std
    finite = np.isfinite(standardized)
    reach = max(_SPREAD / 2, float(np.abs(standardized[finite]).max(initial=0.0)))
    across = (np.arange(len(values)) + 0.5) / len(values) * (width - 1)
    down = top + (1 - (np.where(finite, standardized, 0.0) / reach + 1) / 2) * (row - 3) + 1
    edges = np.flatnonzero(np.diff(np.concatenate(([0], finite.astype(np.int8), [0]))))
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        points = list(zip(across[start:end].tolist(), down[start:end].tolist(), strict=True))
        if len(points) == 1:
            draw.point(points, fill=_INK)
        else:
            draw.line(points, fill=_INK, width=2, joint="curve")


def _draw_name(draw: ImageDraw.ImageDraw, name: str, top: int, row: int) -> None:
    size = max(_MIN_SIZE_PX, min(15, row // 5))
    draw.text((5, top + 2), name, fill=_NAME, font=load_font(find_font(name), size))
