"""Rows and columns of cells that a network reads, where it skips some in a regular lattice.

A 1 × 1 convolution with a stride of 2, as ResNets of Caffe have it, reads one of four cells: the others have no slope,
and the evidence is a grid of dots.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["ReadCells", "read_cells"]

_FEWEST = 3
"""Rows or columns that are read, at least: two make a lattice of any two."""


@dataclass(frozen=True)
class ReadCells:
    """The cells that are left when the skipped rows and columns are taken out."""

    rows: NDArray[np.int64]
    """Their numbers, in order."""
    columns: NDArray[np.int64]
    shift: tuple[float, float]
    """Displacement of their content to the right and down when they are spread over the picture evenly, in their own
    widths (`kdedge_runtime.drawing.heatmap.MapDisplay`)."""

    def of(self, planes: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return these cells of planes `[..., h, w]`."""
        return planes[..., self.rows[:, None], self.columns]


def read_cells(slope: NDArray[np.float64]) -> ReadCells:
    """Find the rows and columns that a regular lattice of read cells lies in; all of them where there is none.

    Args:
        slope: the derivative of the answer with respect to each activation, `[C, h, w]`.
    """
    is_read = (slope != 0).any(axis=0)
    (rows, down), (columns, across) = (_side(is_read.any(axis=axis)) for axis in (1, 0))
    return ReadCells(rows, columns, (across, down))


def _side(is_read: NDArray[np.bool_]) -> tuple[NDArray[np.int64], float]:
    """The numbers of a side's cells in the lattice, and their displacement."""
    size, read = len(is_read), np.flatnonzero(is_read)
    step = int(np.gcd.reduce(np.diff(read))) if len(read) >= _FEWEST else 1
    if step == 1:
        return np.arange(size), 0.0
    kept = np.arange(read[0] % step, size, step)
    middles = (kept + 0.5) / size * len(kept)  # in widths of the cells that are left
    return kept, float(np.mean(middles - np.arange(len(kept)) - 0.5))
