"""Boxes around objects, in what a model sees of their picture."""

import numpy as np
from numpy.typing import NDArray

from kdedge_runtime.metadata import ImageInput
from kdedge_runtime.preprocess import visible_box
from kdedge_runtime.util.arrays import Floats

__all__ = ["box_mask", "boxes_at_input"]


def boxes_at_input(boxes: Floats, height: int, width: int, spec: ImageInput) -> Floats:
    """Boxes of a picture, as they lie in what the model sees of it.

    Args:
        boxes: `[k, 4]` as left, top, right, bottom in pixels of the picture.
        height: rows of the picture.
        width: columns of the picture.
        spec: the model's input.

    Returns:
        float32 `[k, 4]` in pixels of the model's input; parts that it does not see lie outside of it.
    """
    left, top, right, bottom = visible_box(height, width, spec)
    scale = np.array([spec.width / (right - left), spec.height / (bottom - top)] * 2)
    return np.asarray((boxes - np.array([left, top] * 2)) * scale, dtype=np.float32)


def box_mask(boxes: Floats, height: int, width: int) -> NDArray[np.bool_]:
    """Pixels whose centre lies in each box, bool `[N, height, width]`.

    Args:
        boxes: `[N, 4]` as left, top, right, bottom in pixels of a `height` × `width` picture.
        height: rows of the picture.
        width: columns of the picture.
    """
    left, top, right, bottom = (side[:, None] for side in boxes.T)
    x, y = np.arange(width) + 0.5, np.arange(height) + 0.5
    columns = (left <= x) & (x < right)
    rows = (top <= y) & (y < bottom)
    return np.asarray(rows[:, :, None] & columns[:, None, :])
