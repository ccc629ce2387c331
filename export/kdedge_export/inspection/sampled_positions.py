"""Rows and columns of a map that a network reads, if it skips some in a regular lattice.

A 1 × 1 convolution with stride 2, as in Caffe's ResNets, reads one of four positions. The others have no gradient, and
the evidence is a grid of dots.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["SampledPositions", "sampled_positions"]

_FEWEST = 3
"""Minimum number of rows or columns read; any two form a lattice."""


@dataclass(frozen=True)
class SampledPositions:
    """Positions that remain after removing skipped rows and columns."""

    rows: NDArray[np.int64]
    """Indices in order."""
    columns: NDArray[np.int64]
    shift: tuple[float, float]
    """Displacement of their content to the right and down when spread evenly over the image, in their own widths
    (`kdedge_runtime.drawing.heatmap.MapDisplay`)."""

    def of(self, planes: NDArray[np.float64]) -> NDArray[np.float64]:
        """Select these positions of planes `[..., h, w]`."""
        return planes[..., self.rows[:, None], self.columns]


def sampled_positions(slope: NDArray[np.float64]) -> SampledPositions:
    """Find the rows and columns of a regular lattice of read positions; all of them if there is none.

    Args:
        slope: derivative of the logit with respect to each activation, `[C, h, w]`.
    """
    is_read = (slope != 0).any(axis=0)
    (rows, down), (columns, across) = (_side(is_read.any(axis=axis)) for axis in (1, 0))
    return SampledPositions(rows, columns, (across, down))


def _side(is_read: NDArray[np.bool_]) -> tuple[NDArray[np.int64], float]:
    """Return the indices of a side's lattice positions, and their displacement."""
    size, read = len(is_read), np.flatnonzero(is_read)
    step = int(np.gcd.reduce(np.diff(read))) if len(read) >= _FEWEST else 1
    if step == 1:
        return np.arange(size), 0.0
    kept = np.arange(read[0] % step, size, step)
    middles = (kept + 0.5) / size * len(kept)  # in widths of the remaining positions
    return kept, float(np.mean(middles - np.arange(len(kept)) - 0.5))
