"""Superpixels: segmentation by color and position.

SLIC (Achanta et al., IEEE TPAMI 2012) with the fixed neighborhood of gSLIC (Ren and Reid, 2011): each pixel is assigned
to one of the nine seeds around its grid cell. Colors are compared in YCbCr after blurring, so that texture does not
fragment the segments. Segments need not be connected.
"""

import numpy as np
from PIL import Image, ImageFilter

from kdedge_runtime.util.arrays import Integers, Pixels

__all__ = ["superpixels"]

_ITERATIONS = 6
_BLUR = 0.1
"""Blur radius, relative to the grid step."""
_COMPACTNESS = 20.0
"""Weight of the distance to a seed relative to color: one grid step equals this many color levels."""


def superpixels(image: Pixels, count: int) -> Integers:
    """Segment an image into at most `count` superpixels.

    Args:
        image: uint8 RGB `[H, W, 3]`.
        count: maximum number of segments, at least 2. The actual number fills whole rows and columns of a grid.

    Returns:
        Segment indices int64 `[H, W]`, numbered from 0 without gaps.
    """
    height, width = image.shape[:2]
    rows = min(max(round((count * height / width) ** 0.5), 1), height, count)
    columns = min(count // rows, width)
    step = (height * width / (rows * columns)) ** 0.5
    blurred = Image.fromarray(image).filter(ImageFilter.GaussianBlur(_BLUR * step))
    color = np.asarray(blurred.convert("YCbCr"), np.float32)
    down, across = np.indices((height, width), np.float32)
    # Color and position of each pixel, scaled so that the Euclidean distance equals SLIC's.
    points = np.concatenate([color, np.stack([down, across], 2) * (_COMPACTNESS / step)], axis=2).reshape(-1, 5)
    home_row = (np.arange(height) * rows // height)[:, None]
    home_column = np.arange(width) * columns // width
    labels = (home_row * columns + home_column).ravel()
    neighbors = [
        (np.clip(home_row + i, 0, rows - 1) * columns + np.clip(home_column + j, 0, columns - 1)).ravel()
        for i in (-1, 0, 1)
        for j in (-1, 0, 1)
    ]
    centers = np.zeros((rows * columns, 5), np.float32)
    for _ in range(_ITERATIONS):
        counts = np.bincount(labels, minlength=len(centers))
        sums = [np.bincount(labels, points[:, axis], minlength=len(centers)) for axis in range(5)]
        filled = counts > 0  # empty segments keep their center
        centers[filled] = (np.stack(sums, axis=1)[filled] / counts[filled, None]).astype(np.float32)
        distances = np.stack([((points - centers[seeds]) ** 2).sum(axis=1) for seeds in neighbors])
        labels = np.choose(distances.argmin(axis=0), neighbors)
    return np.unique(labels, return_inverse=True)[1].reshape(height, width).astype(np.int64)
