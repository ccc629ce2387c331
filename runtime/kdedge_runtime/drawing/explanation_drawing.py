"""Drawings of explanations for files: heat on the scale of the sample, and pairs of a sample and its map."""

import numpy as np
from PIL import Image

from kdedge_runtime.drawing.heatmap import display_heat, peak
from kdedge_runtime.prediction import Prediction
from kdedge_runtime.util.arrays import Floats, Pixels

__all__ = ["heat_of_sample", "side_by_side"]

_GAP_PX = 6


def heat_of_sample(prediction: Prediction) -> Floats | None:
    """Return the heat map of a prediction in [0, 1], where its own peak has the most heat; None without a map."""
    if prediction.saliency_map is None:
        return None
    return display_heat(prediction.saliency_map, peak(prediction.saliency_map), prediction.display.typical_contrast)


def side_by_side(plain: Pixels, overlay: Pixels) -> Pixels:
    """Return a drawn sample next to its overlay, at the size of the overlay, uint8 RGB."""
    left = Image.fromarray(plain).resize(overlay.shape[1::-1], Image.Resampling.BICUBIC)
    gap = np.full((overlay.shape[0], _GAP_PX, 3), 255, dtype=np.uint8)
    return np.concatenate([np.asarray(left), gap, overlay], axis=1)
