"""Conversion between image pixels and grid cells."""

import numpy as np

from kdedge_runtime.util.arrays import Floats, Integers

__all__ = ["cell_edges", "cell_means", "enlarge"]


def cell_edges(side: int, cells: int) -> Integers:
    """Return the boundaries of `cells` even parts of `side` pixels, int64 `[cells + 1]`."""
    return np.rint(np.linspace(0, side, min(cells, side) + 1)).astype(np.int64)


def cell_means(masks: Floats, rows: Integers, columns: Integers) -> Floats:
    """Return means `[n, h, w]` of masks `[n, H, W]` over cells between `rows` `[h + 1]` and `columns` `[w + 1]`."""
    sums = np.add.reduceat(np.add.reduceat(masks, rows[:-1], axis=1), columns[:-1], axis=2)
    means: Floats = sums / (np.diff(rows)[:, None] * np.diff(columns))
    return means


def enlarge(cells: Floats, height: int, width: int) -> Floats:
    """Interpolate `[n, h, w]` bilinearly to `[n, height, width]`. Cell values apply at cell centers."""
    down, across = _weights(cells.shape[1], height), _weights(cells.shape[2], width)
    enlarged: Floats = down @ cells.astype(np.float32) @ across.T
    return enlarged


def _weights(cells: int, pixels: int) -> Floats:
    """Return the interpolation weights `[pixels, cells]`; rows sum to 1."""
    place = np.clip((np.arange(pixels) + 0.5) * cells / pixels - 0.5, 0, cells - 1)
    weights: Floats = np.maximum(1 - np.abs(place[:, None] - np.arange(cells)), 0).astype(np.float32)
    return weights
