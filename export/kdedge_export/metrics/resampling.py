"""Resample maps of two models to a common resolution."""

import numpy as np
from numpy.typing import NDArray

from kdedge_runtime.util.arrays import Floats

__all__ = ["area_mean", "to_common_size"]


def area_mean(maps: Floats, height: int, width: int) -> Floats:
    """Downsample maps `[N, h, w]` to `[N, height, width]` by area averaging.

    Averaging avoids aliasing and preserves a map's mean. Positions that straddle two target positions are split, so the
    sizes need not divide.
    """
    rows, columns = _overlap(maps.shape[1], height), _overlap(maps.shape[2], width)
    return np.asarray(rows @ maps.astype(np.float64) @ columns.T, dtype=np.float32)


def to_common_size(a: Floats, b: Floats) -> tuple[Floats, Floats]:
    """Resample two stacks of maps to the smaller height and width; unchanged if they match."""
    if a.shape[1:] == b.shape[1:]:
        return a, b
    height, width = min(a.shape[1], b.shape[1]), min(a.shape[2], b.shape[2])
    return area_mean(a, height, width), area_mean(b, height, width)


def _overlap(source: int, target: int) -> NDArray[np.float64]:
    """Return the overlap of `target` new with `source` old positions as fractions, `[target, source]`."""
    scale = source / target
    start, position = np.arange(target)[:, None] * scale, np.arange(source)[None, :]
    covered = np.minimum(start + scale, position + 1) - np.maximum(start, position)
    return np.asarray(np.clip(covered, 0.0, None) / scale)
