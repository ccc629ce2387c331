"""Explanation of an image for a file: the image next to its heat map."""

import numpy as np
from PIL import Image

from kdedge_runtime.drawing.explanation_drawing import heat_of_sample, side_by_side
from kdedge_runtime.drawing.overlay import draw_overlay
from kdedge_runtime.modalities.image import ImageInput
from kdedge_runtime.prediction import Prediction
from kdedge_runtime.util.arrays import Pixels

__all__ = ["draw_image_explanation"]

_MAX_SIDE_PX = 1280


def draw_image_explanation(spec: ImageInput, prediction: Prediction, opacity: float) -> Pixels:
    """Return an image next to its overlay, uint8 RGB. Each side of both is at most 1280 pixels.

    Args:
        spec: input of the model.
        prediction: prediction for the image.
        opacity: opacity of the map at full heat, in [0, 1].
    """
    pixels = _shrunk(prediction.sample)
    box = spec.visible_box(*pixels.shape[:2])
    overlay = draw_overlay(pixels, heat_of_sample(prediction), box, opacity=opacity, shift=prediction.display.shift)
    return side_by_side(pixels, overlay)


def _shrunk(pixels: Pixels) -> Pixels:
    if max(pixels.shape) <= _MAX_SIDE_PX:
        return pixels
    image = Image.fromarray(pixels)
    image.thumbnail((_MAX_SIDE_PX, _MAX_SIDE_PX), Image.Resampling.LANCZOS)
    return np.asarray(image)
