"""Bring the maps of two models to one size."""

import numpy as np
from numpy.typing import NDArray

from kdedge_runtime.util.arrays import Floats

__all__ = ["area_mean", "to_common_size"]


def area_mean(maps: Floats, height: int, width: int) -> Floats:
    """Shrink maps `[N, h, w]` to `[N, height, width]`; every new cell is the mean of the area that it covers.

    Averaging adds no detail and lets none alias, and it keeps a map's mean. Cells that straddle two new cells are
    split between them, so the sizes need not divide.
    """
    rows, columns = _overlap(maps.shape[1], height), _overlap(maps.shape[2], width)
    return np.asarray(rows @ maps.astype(np.float64) @ columns.T, dtype=np.float32)


def to_common_size(a: Floats, b: Floats) -> tuple[Floats, Floats]:
    """Both stacks of maps at the smaller height and the smaller width of the two; untouched where they fit."""
    if a.shape[1:] == b.shape[1:]:
        return a, b
    height, width = min(a.shape[1], b.shape[1]), min(a.shape[2], b.shape[2])
    return area_mean(a, height, width), area_mean(b, height, width)


def _overlap(source: int, target: int) -> NDArray[np.float64]:
    """Share of each of `target` new cells that each of `source` old cells fills, `[target, source]`."""
    scale = source / target
    start, cell = np.arange(target)[:, None] * scale, np.arange(source)[None, :]
    covered = np.minimum(start + scale, cell + 1) - np.maximum(start, cell)
    return np.asarray(np.clip(covered, 0.0, None) / scale)
