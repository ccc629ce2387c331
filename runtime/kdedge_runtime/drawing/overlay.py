"""Overlays: an image blended with its heat map."""

import math
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from kdedge_runtime.drawing.caption import Caption, draw_caption
from kdedge_runtime.drawing.colormap import heat_ramp
from kdedge_runtime.drawing.heatmap import OPACITY, Box
from kdedge_runtime.util.arrays import Floats, Pixels

__all__ = ["OPACITY", "draw_outline", "draw_overlay", "enlargement", "paste_heat"]

_MIN_SIDE_PX = 240
_MAX_JPEG_PX = 65_500
"""Longest side supported by libjpeg, in pixels."""
_MAX_ENLARGED_PX = 16_000_000
_SEEN_OUTLINE = (255, 255, 255, 150)
_SEEN_OUTLINE_SHADE = (0, 0, 0, 110)


def draw_overlay(
    image: Pixels,
    heat: Floats | None,
    box: Box,
    caption: Caption | None = None,
    *,
    opacity: float = OPACITY,
    shift: tuple[float, float] = (0.0, 0.0),
) -> Pixels:
    """Blend a heat map over the visible part of an image and draw the caption.

    The area outside the visible part keeps its colors, except for a thin outline.

    Args:
        image: uint8 RGB `[H, W, 3]`; not modified.
        heat: heat map `[h, w]` in [0, 1] (see `kdedge_runtime.drawing.heatmap.normalize_heatmap`), or None.
        box: visible part of the image, from `ImageInput.visible_box`. Parts outside the image are not
        drawn.
        caption: caption, or None.
        opacity: opacity at full heat, in [0, 1]; proportional to the heat elsewhere.
        shift: offset of the heat map in map pixels, each in [-1, 1] (see `kdedge_runtime.drawing.heatmap.MapDisplay`).

    Returns:
        uint8 RGB of the image's size. Images too small for a caption are enlarged by an integer factor, up to 16
        million pixels.
    """
    height, width = image.shape[:2]
    enlarged = enlargement(height, width)
    canvas = Image.fromarray(image)
    if enlarged > 1:
        canvas = canvas.resize((width * enlarged, height * enlarged), Image.Resampling.BICUBIC)
    left, top, right, bottom = (round(edge * enlarged) for edge in box)
    right, bottom = max(right, left + 1), max(bottom, top + 1)
    if heat is not None:
        paste_heat(canvas, heat, (left, top, right, bottom), opacity, shift)
    if left > 0 or top > 0 or right < canvas.width or bottom < canvas.height:
        draw_outline(canvas, (left, top, right, bottom))
    if caption is not None:
        draw_caption(canvas, caption)
    return np.asarray(canvas)


def enlargement(height: int, width: int) -> int:
    """Return the integer factor by which an image is enlarged, so that its caption is legible."""
    if min(height, width) >= _MIN_SIDE_PX / 2:
        return 1
    # Otherwise a strip a few pixels high would grow to gigabytes and exceed the JPEG size limit.
    most = min(math.isqrt(_MAX_ENLARGED_PX // (height * width)), _MAX_JPEG_PX // max(height, width))
    return max(1, min(-(-_MIN_SIDE_PX // min(height, width)), most))


def paste_heat(
    canvas: Image.Image,
    heat: Floats,
    region: tuple[int, int, int, int],
    opacity: float,
    shift: tuple[float, float],
) -> None:
    """Blend a heat map over a region of an image, in place.

    Args:
        canvas: RGB image.
        heat: heat map `[h, w]` in [0, 1].
        region: left, top, right and bottom of the heat map in pixels. Parts outside the image are not drawn.
        opacity: opacity at full heat, in [0, 1].
        shift: offset of the heat map in map pixels.
    """
    # Pillow's 8-bit blending takes 2 ms at 640 × 360 on one x86 core; float arrays take 5 ms.
    left, top, right, bottom = region
    # The letterbox of a narrow strip is far larger than the strip.
    shown = max(left, 0), max(top, 0), min(right, canvas.width), min(bottom, canvas.height)
    (rows, columns), (across, down) = heat.shape, shift
    levels, border = np.round(heat * 255).astype(np.uint8), 0
    if shift != (0.0, 0.0):  # repeated edge values fill the area uncovered by the shift
        levels, border = np.pad(levels, 1, mode="edge"), 1
    across, down = border - across, border - down
    window = (
        (shown[0] - left) * columns / (right - left) + across,
        (shown[1] - top) * rows / (bottom - top) + down,
        (shown[2] - left) * columns / (right - left) + across,
        (shown[3] - top) * rows / (bottom - top) + down,
    )
    size = shown[2] - shown[0], shown[3] - shown[1]
    smooth = Image.fromarray(levels).resize(size, Image.Resampling.BICUBIC, box=window)
    cover = smooth.point([round(level * opacity) for level in range(256)])
    smooth.putpalette(_palette())
    canvas.paste(smooth.convert("RGB"), shown[:2], cover)


@lru_cache(maxsize=1)
def _palette() -> bytes:
    return heat_ramp().tobytes()


def draw_outline(canvas: Image.Image, region: tuple[int, int, int, int]) -> None:
    """Draw the outline of a region (left, top, right, bottom in pixels) on an RGB image, in place."""
    left, top, right, bottom = region
    draw = ImageDraw.Draw(canvas, "RGBA")
    # A light line next to a dark one is visible on any background.
    draw.rectangle((left, top, right - 1, bottom - 1), outline=_SEEN_OUTLINE)
    if min(right - left, bottom - top) > 2:
        draw.rectangle((left + 1, top + 1, right - 2, bottom - 2), outline=_SEEN_OUTLINE_SHADE)
