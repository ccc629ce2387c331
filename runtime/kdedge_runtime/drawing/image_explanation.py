"""Explanation of an image for a file: the image next to its heat map."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from kdedge_runtime.drawing.explanation_drawing import pair_with_caption
from kdedge_runtime.drawing.heatmap import display_heat, peak
from kdedge_runtime.drawing.overlay import draw_overlay
from kdedge_runtime.drawing.prediction_caption import caption_of
from kdedge_runtime.modalities.image import ImageInput
from kdedge_runtime.prediction import Prediction
from kdedge_runtime.util.arrays import Pixels

__all__ = ["draw_image_explanation"]

_MAX_SIDE_PX = 1280


def draw_image_explanation(spec: ImageInput, prediction: Prediction, opacity: float, details: Sequence[str]) -> Pixels:
    """Return an image next to its overlay with the prediction below, uint8 RGB. Each side is at most 1280 pixels.

    Args:
        spec: input of the model.
        prediction: prediction for the image.
        opacity: opacity of the map at full heat, in [0, 1].
        details: further lines of the caption.
    """
    pixels = _shrunk(prediction.frame.sample)
    heat = None
    if prediction.saliency_map is not None:
        strongest = peak(prediction.saliency_map)
        heat = display_heat(prediction.saliency_map, strongest, prediction.display.typical_contrast)
    box = spec.visible_box(*pixels.shape[:2])
    overlay = draw_overlay(pixels, heat, box, opacity=opacity, shift=prediction.display.shift)
    return pair_with_caption(pixels, overlay, caption_of(prediction, details=details))


def _shrunk(pixels: Pixels) -> Pixels:
    if max(pixels.shape) <= _MAX_SIDE_PX:
        return pixels
    image = Image.fromarray(pixels)
    image.thumbnail((_MAX_SIDE_PX, _MAX_SIDE_PX), Image.Resampling.LANCZOS)
    return np.asarray(image)
