"""Images and overlays as data URIs, small enough to embed many in one page."""

import base64
import io

import numpy as np
from PIL import Image

from kdedge_runtime.drawing.heatmap import normalize_heatmap, peak
from kdedge_runtime.drawing.overlay import draw_overlay
from kdedge_runtime.util.arrays import Floats, Pixels

__all__ = ["at_display_size", "drawing_uri", "jpeg_uri", "overlaid"]

SIDE_PX = 224
"""Longer side of an embedded image in pixels."""
MAX_BYTES = 18_000
"""Maximum size of one encoded image: 46 rows of 5 stay below 6 MB as base64."""
_QUALITIES = (82, 65, 45, 25)
_COLORS = 32
"""Number of colors of a drawing, with those at the edges of letters."""


def overlaid(image: Pixels, saliency_map: Floats, shift: tuple[float, float] = (0.0, 0.0)) -> Pixels:
    """Overlay a saliency map on an image and return uint8 RGB at display size.

    The heat map is the positive part of the map on its own scale. It shows where the evidence lies and does not compare
    strength between models.

    Args:
        image: uint8 RGB `[H, W, 3]`, the model's whole input.
        saliency_map: raw signed map `[h, w]`.
        shift: displacement of its content, in map positions (`kdedge_runtime.drawing.heatmap.MapDisplay.shift`).
    """
    canvas = at_display_size(image)
    height, width = canvas.shape[:2]
    whole = (0.0, 0.0, float(width), float(height))
    finite = np.nan_to_num(saliency_map, nan=0.0, posinf=0.0, neginf=0.0)
    heat = normalize_heatmap(finite, peak(finite))
    return draw_overlay(canvas, heat, whole, shift=shift)


def at_display_size(image: Pixels) -> Pixels:
    """Resize an image to display size; a 32 px input is enlarged and a photo is shrunk."""
    height, width = image.shape[:2]
    scale = SIDE_PX / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


def jpeg_uri(image: Pixels) -> str:
    """Encode an image uint8 RGB `[H, W, 3]` at its size as a `data:` URI, at the best quality that is small enough."""
    attempts = (_jpeg(image, quality) for quality in _QUALITIES)
    data = next((jpeg for jpeg in attempts if len(jpeg) <= MAX_BYTES), None) or _jpeg(image, _QUALITIES[-1])
    return "data:image/jpeg;base64," + base64.b64encode(data).decode("ascii")


def drawing_uri(image: Pixels) -> str:
    """Encode a drawing of few colors, uint8 RGB `[H, W, 3]`, as a `data:` URI: sharper and smaller than as JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(image).quantize(_COLORS).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _jpeg(image: Pixels, quality: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality, optimize=True)
    return buffer.getvalue()
