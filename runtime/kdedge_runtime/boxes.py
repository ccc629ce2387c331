"""Bounding boxes in model input coordinates."""

import numpy as np
from numpy.typing import NDArray

from kdedge_runtime.modalities.image import ImageInput
from kdedge_runtime.util.arrays import Floats

__all__ = ["box_mask", "boxes_at_input"]


def boxes_at_input(boxes: Floats, height: int, width: int, spec: ImageInput) -> Floats:
    """Transform bounding boxes from image coordinates to model input coordinates.

    Args:
        boxes: `[k, 4]` as left, top, right, bottom, in image pixels.
        height: image height in pixels.
        width: image width in pixels.
        spec: model input specification.

    Returns:
        float32 `[k, 4]` in input pixels. Boxes may extend beyond the input where the image is cropped.
    """
    left, top, right, bottom = spec.visible_box(height, width)
    scale = np.array([spec.width / (right - left), spec.height / (bottom - top)] * 2)
    return np.asarray((boxes - np.array([left, top] * 2)) * scale, dtype=np.float32)


def box_mask(boxes: Floats, height: int, width: int) -> NDArray[np.bool_]:
    """Return a mask of the pixels whose centers lie in each box, bool `[N, height, width]`.

    Args:
        boxes: `[N, 4]` as left, top, right, bottom, in pixels of a `height` × `width` image.
        height: image height in pixels.
        width: image width in pixels.
    """
    left, top, right, bottom = (side[:, None] for side in boxes.T)
    x, y = np.arange(width) + 0.5, np.arange(height) + 0.5
    columns = (left <= x) & (x < right)
    rows = (top <= y) & (y < bottom)
    return np.asarray(rows[:, :, None] & columns[:, None, :])
