"""Overlays of several regions in one image."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from kdedge_runtime.drawing.caption import Caption, draw_region_caption
from kdedge_runtime.drawing.heatmap import Box
from kdedge_runtime.drawing.overlay import draw_outline, enlargement, paste_heat
from kdedge_runtime.util.arrays import Floats, Pixels

__all__ = ["RegionDrawing", "draw_region_overlay"]


@dataclass(frozen=True, eq=False)
class RegionDrawing:
    """Region of an image, with what is drawn on it."""

    box: tuple[int, int, int, int]
    """Left, top, right and bottom in pixels of the image."""
    heat: Floats | None
    """Heat map `[h, w]` in [0, 1], or None."""
    visible: Box
    """Part of the region that the model receives, in pixels from the region's upper left corner."""
    caption: Caption
    shift: tuple[float, float] = (0.0, 0.0)
    """Offset of the heat map in map pixels; see `kdedge_runtime.drawing.heatmap.MapDisplay`."""


def draw_region_overlay(image: Pixels, regions: Sequence[RegionDrawing], opacity: float) -> Pixels:
    """Draw the heat map, the outline and the caption of every region. The rest of the image keeps its colors.

    Args:
        image: uint8 RGB `[H, W, 3]`; not modified.
        regions: regions inside the image. Overlapping maps are blended in this order, below all outlines and captions.
        opacity: opacity at full heat, in [0, 1].

    Returns:
        uint8 RGB of the image's size; small images are enlarged as by `draw_overlay`.
    """
    height, width = image.shape[:2]
    enlarged = enlargement(height, width)
    canvas = Image.fromarray(image)
    if enlarged > 1:
        canvas = canvas.resize((width * enlarged, height * enlarged), Image.Resampling.BICUBIC)
    boxes = [_scaled(region.box, enlarged) for region in regions]
    for region, box in zip(regions, boxes, strict=True):
        if region.heat is not None:
            part = canvas.crop(box)
            left, top, right, bottom = (round(edge * enlarged) for edge in region.visible)
            visible = left, top, max(right, left + 1), max(bottom, top + 1)
            paste_heat(part, region.heat, visible, opacity, region.shift)
            canvas.paste(part, box[:2])
    for box in boxes:
        draw_outline(canvas, box)
    for region, box in zip(regions, boxes, strict=True):
        draw_region_caption(canvas, region.caption, box)
    return np.asarray(canvas)


def _scaled(box: tuple[int, int, int, int], factor: int) -> tuple[int, int, int, int]:
    left, top, right, bottom = box
    return left * factor, top * factor, right * factor, bottom * factor
