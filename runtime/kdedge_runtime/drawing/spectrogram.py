"""Spectrograms: log-mel features as an image with heat, time to the right and frequency upward."""

import math

import numpy as np
from PIL import Image, ImageDraw

from kdedge_runtime.drawing.caption import Caption, append_caption
from kdedge_runtime.drawing.fonts import load_font
from kdedge_runtime.drawing.heatmap import OPACITY
from kdedge_runtime.drawing.overlay import paste_heat
from kdedge_runtime.util.arrays import Floats, Pixels

__all__ = ["TIME_STEPS_S", "draw_spectrogram", "gray_spectrogram", "time_marks"]

WIDTH_PX, HEIGHT_PX = 640, 320
"""Size of the spectrogram without its axis."""
_AXIS_PX = 22
_TYPE_PX = 13
_INK, _PAPER = (214, 214, 226), (12, 12, 18)
_DYNAMIC_RANGE = 12.0
"""Range of log energies between black and white: 52 dB."""
TIME_STEPS_S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0)
_MAX_MARKS = 8


def draw_spectrogram(
    features: Floats,
    heat: Floats | None,
    span_s: tuple[float, float],
    caption: Caption | None = None,
    *,
    opacity: float = OPACITY,
    shift: tuple[float, float] = (0.0, 0.0),
) -> Pixels:
    """Draw log-mel features in gray with a heat map, marks of time below, and a caption.

    Args:
        features: log energies `[mel_bands, frames]`, lowest band first.
        heat: heat map `[h, w]` in [0, 1], lowest band first, or None.
        span_s: start and end of the frames in seconds.
        caption: caption, or None.
        opacity: opacity at full heat, in [0, 1].
        shift: offset of the map content in map positions, see `MapDisplay`.

    Returns:
        uint8 RGB. Low frequencies are at the bottom.
    """
    canvas = Image.fromarray(gray_spectrogram(features)).resize((WIDTH_PX, HEIGHT_PX), Image.Resampling.BICUBIC)
    if heat is not None:
        paste_heat(canvas, heat[::-1], (0, 0, WIDTH_PX, HEIGHT_PX), opacity, (shift[0], -shift[1]))
    page = Image.new("RGB", (WIDTH_PX, HEIGHT_PX + _AXIS_PX), _PAPER)
    page.paste(canvas, (0, 0))
    _draw_axis(page, span_s)
    return np.asarray(page if caption is None else append_caption(page, caption))


def gray_spectrogram(features: Floats) -> Pixels:
    """Convert log energies `[mel_bands, frames]` to gray uint8 RGB of the same size, low frequencies at the bottom.

    Digital silence, which has the same energy everywhere, is black.
    """
    if not np.ptp(features):
        return np.zeros((*features.shape, 3), np.uint8)
    levels = np.clip((features[::-1] - float(features.max()) + _DYNAMIC_RANGE) / _DYNAMIC_RANGE, 0, 1)
    return np.repeat(np.round(levels * 255).astype(np.uint8)[..., None], 3, axis=2)


def time_marks(start_s: float, end_s: float) -> tuple[float, ...]:
    """Return round times between two times in seconds, at most eight."""
    length = end_s - start_s
    step = next((each for each in TIME_STEPS_S if length / each <= _MAX_MARKS), length / _MAX_MARKS)
    first, last = math.ceil(start_s / step - 1e-6), math.floor(end_s / step + 1e-6)
    return tuple(number * step for number in range(first, last + 1))


def _draw_axis(page: Image.Image, span_s: tuple[float, float]) -> None:
    draw, font = ImageDraw.Draw(page), load_font(None, _TYPE_PX)
    start, end = span_s
    for mark in time_marks(start, end):
        across = round((mark - start) / (end - start) * (WIDTH_PX - 1))
        draw.line((across, HEIGHT_PX, across, HEIGHT_PX + 4), fill=_INK)
        text = f"{mark:.2f}".rstrip("0").rstrip(".") + " s"
        anchor = "lt" if across < WIDTH_PX * 0.04 else "rt" if across > WIDTH_PX * 0.96 else "mt"
        draw.text((across, HEIGHT_PX + 6), text, _INK, font=font, anchor=anchor)
