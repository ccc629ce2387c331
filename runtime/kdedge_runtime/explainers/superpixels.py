"""Superpixels: parts of a picture that hold together by colour and place.

SLIC (Achanta et al., IEEE TPAMI 2012) with the fixed neighbourhood of gSLIC (Ren and Reid, 2011): a pixel chooses among
the nine seeds around the cell of the regular grid that it lies in. Colours are compared in YCbCr, after blurring, so
that texture does not scatter the parts. Stray pixels are not joined to their neighbours: whoever hides and shows
parts does not need them connected.
"""

import numpy as np
from PIL import Image, ImageFilter

from kdedge_runtime.util.arrays import Integers, Pixels

__all__ = ["superpixels"]

_ITERATIONS = 6
_BLUR = 0.1
"""Radius of the blur, in steps of the grid."""
_COMPACTNESS = 20.0
"""How much a seed's distance weighs beside colour: a step of the grid counts as much as this many levels."""


def superpixels(picture: Pixels, count: int) -> Integers:
    """Divide a picture into `count` parts, or somewhat fewer.

    Args:
        picture: uint8 RGB `[H, W, 3]`.
        count: the most to make, at least 2: what comes are the whole rows and columns of a grid.

    Returns:
        int64 `[H, W]`, parts numbered from 0 without gaps.
    """
    height, width = picture.shape[:2]
    rows = min(max(round((count * height / width) ** 0.5), 1), height, count)
    columns = min(count // rows, width)
    step = (height * width / (rows * columns)) ** 0.5
    blurred = Image.fromarray(picture).filter(ImageFilter.GaussianBlur(_BLUR * step))
    colour = np.asarray(blurred.convert("YCbCr"), np.float32)
    down, across = np.indices((height, width), np.float32)
    # Colour and place of each pixel, scaled so that the plain Euclidean distance is SLIC's.
    points = np.concatenate([colour, np.stack([down, across], 2) * (_COMPACTNESS / step)], axis=2).reshape(-1, 5)
    home_row = (np.arange(height) * rows // height)[:, None]
    home_column = np.arange(width) * columns // width
    labels = (home_row * columns + home_column).ravel()
    neighbours = [
        (np.clip(home_row + i, 0, rows - 1) * columns + np.clip(home_column + j, 0, columns - 1)).ravel()
        for i in (-1, 0, 1)
        for j in (-1, 0, 1)
    ]
    centres = np.zeros((rows * columns, 5), np.float32)
    for _ in range(_ITERATIONS):
        counts = np.bincount(labels, minlength=len(centres))
        sums = [np.bincount(labels, points[:, axis], minlength=len(centres)) for axis in range(5)]
        filled = counts > 0  # an empty part keeps its place
        centres[filled] = (np.stack(sums, axis=1)[filled] / counts[filled, None]).astype(np.float32)
        distances = np.stack([((points - centres[seeds]) ** 2).sum(axis=1) for seeds in neighbours])
        labels = np.choose(distances.argmin(axis=0), neighbours)
    return np.unique(labels, return_inverse=True)[1].reshape(height, width).astype(np.int64)
