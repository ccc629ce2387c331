"""Spatial grid of a tensor: the position and channel of each value."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kdedge_export.onnx_graph.graph_index import Array
from kdedge_export.onnx_graph.spatial.coordinates import Coordinates, TensorCoordinates
from kdedge_export.spatial_layout import SpatialLayout

__all__ = ["SpatialGrid", "grid_of"]

_DECIMALS = 4
"""Decimals to which coordinates are distinguished."""


@dataclass(frozen=True)
class SpatialGrid:
    """Assignment of one image's activations to spatial positions: planes, rows, tokens, windows, or merged patches."""

    height: int
    width: int
    cells: NDArray[np.int64]
    """Row-major position index of each value, in the tensor's shape; -1 for none."""
    channel_of: NDArray[np.int64]
    """Channel index of each value, in the tensor's shape: the number of earlier values of the same position or
    token."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the grid."""
        return self.height, self.width

    @property
    def channels(self) -> int:
        """Number of channels."""
        return int(self.channel_of.max()) + 1

    @property
    def layout(self) -> SpatialLayout | None:
        """Layout as planes, channels-last planes, or row-major tokens after prefix tokens; None for any other order."""
        shape, numbers = self.positions.shape, np.arange(self.height * self.width, dtype=np.float64).reshape(self.size)
        beside = shape[1] - numbers.size
        if len(shape) == 3 and beside >= 0:
            layouts = [SpatialLayout("tokens", *self.size, beside)]
        else:
            layouts = [SpatialLayout("NCHW", *self.size), SpatialLayout("NHWC", *self.size)] if len(shape) == 4 else []
            layouts = [item for item in layouts if tuple(shape[axis] for axis in item.position_axes) == self.size]
        return next((item for item in layouts if (self.positions == item.over_positions(numbers, -1.0)).all()), None)

    def planes(self, value: Array) -> NDArray[np.float64]:
        """Rearrange a tensor's values to `[C, h, w]`."""
        planes = np.zeros((self.channels, self.height * self.width))
        is_placed = self.positions >= 0
        planes[self.channel_of[is_placed], self.positions[is_placed]] = value[is_placed]
        return planes.reshape(-1, self.height, self.width)

    def beside(self, value: Array) -> NDArray[np.float64]:
        """Return the values without a position, `[C, tokens]`, such as a class token's."""
        order = np.argsort(self.channel_of[self.positions < 0], kind="stable")
        found: NDArray[np.float64] = value[self.positions < 0][order].astype(np.float64).reshape(self.channels, -1)
        return found

    def over_positions(self, values: NDArray[np.float64], elsewhere: float) -> NDArray[np.float64]:
        """Expand one value per position, `[h, w]`, to the tensor's shape."""
        return np.append(values.ravel(), elsewhere)[self.positions]  # index -1 selects the last value

    def over_channels(self, values: NDArray[np.float64], elsewhere: float) -> NDArray[np.float64]:
        """Expand one value per channel, `[C]`, to the tensor's shape."""
        return np.where(self.positions < 0, elsewhere, values[self.channel_of])


def grid_of(places: TensorCoordinates) -> SpatialGrid | None:
    """Return the grid of a tensor with at least two rows and columns.

    Returns None if there is none, or if its positions differ in their number of values.
    """
    is_placed = ~np.isnan(places.rows)
    height, row = _numbered(places.rows[is_placed])
    width, column = _numbered(places.columns[is_placed])
    if min(height, width) < 2:
        return None
    number = row * width + column
    counts = np.bincount(number, minlength=height * width)
    channels = int(counts[0])
    beside = int(is_placed.size - number.size)
    if not channels or (counts != channels).any() or beside % channels:
        return None
    cells = np.full(places.rows.shape, -1, dtype=np.int64)
    cells[is_placed] = number
    channel_of = np.zeros(places.rows.shape, dtype=np.int64)
    channel_of[is_placed] = _before_of_same(number, channels)
    channel_of[~is_placed] = _of_tokens(~is_placed, channels)
    return SpatialGrid(height, width, cells, channel_of)


def _numbered(values: Coordinates) -> tuple[int, NDArray[np.int64]]:
    """Return the number of distinct coordinates and the index of each value's."""
    different, numbers = np.unique(np.round(values, _DECIMALS), return_inverse=True)
    return len(different), numbers.astype(np.int64)


def _before_of_same(numbers: NDArray[np.int64], each: int) -> NDArray[np.int64]:
    """Count earlier occurrences of the same number; every number occurs `each` times."""
    order = np.argsort(numbers, kind="stable")
    before = np.empty_like(numbers)
    before[order] = np.arange(numbers.size) % each
    return before


def _of_tokens(are_beside: NDArray[np.bool_], channels: int) -> NDArray[np.int64]:
    """Return the channels of values without a position: along the axis of that size, or token by token."""
    positions = np.nonzero(are_beside)
    for axis, along in enumerate(positions):
        if are_beside.shape[axis] == channels == len(np.unique(along)):
            return along.astype(np.int64)
    return np.arange(len(positions[0]), dtype=np.int64) % channels
