"""Conversion between image pixels and grid cells."""

import numpy as np

from kdedge_runtime.util.arrays import Floats, Integers

__all__ = ["grid_edges", "grid_means", "enlarge"]


def grid_edges(side: int, positions: int) -> Integers:
    """Return the boundaries of `positions` even parts of `side` pixels, int64 `[positions + 1]`."""
    return np.rint(np.linspace(0, side, min(positions, side) + 1)).astype(np.int64)


def grid_means(masks: Floats, rows: Integers, columns: Integers) -> Floats:
    """Return means `[n, h, w]` of masks `[n, H, W]` over cells between `rows` `[h + 1]` and `columns` `[w + 1]`."""
    sums = np.add.reduceat(np.add.reduceat(masks, rows[:-1], axis=1), columns[:-1], axis=2)
    means: Floats = sums / (np.diff(rows)[:, None] * np.diff(columns))
    return means


def enlarge(positions: Floats, height: int, width: int) -> Floats:
    """Interpolate `[n, h, w]` bilinearly to `[n, height, width]`. Cell values apply at cell centers."""
    down, across = _weights(positions.shape[1], height), _weights(positions.shape[2], width)
    enlarged: Floats = down @ positions.astype(np.float32) @ across.T
    return enlarged


def _weights(positions: int, pixels: int) -> Floats:
    """Return the interpolation weights `[pixels, positions]`; rows sum to 1."""
    place = np.clip((np.arange(pixels) + 0.5) * positions / pixels - 0.5, 0, positions - 1)
    weights: Floats = np.maximum(1 - np.abs(place[:, None] - np.arange(positions)), 0).astype(np.float32)
    return weights
