"""How activations lie over the picture: as planes, as rows of cells, or as a sequence of tokens. It needs no torch."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["MOST_PREFIX_TOKENS", "Layout", "grids_below", "layout_of"]

MOST_PREFIX_TOKENS = 16
"""Class, distillation and register tokens in front of those of the picture; no published model has more."""
Grid = tuple[int, int]


@dataclass(frozen=True)
class Layout:
    """Where the cells of a map are in a tensor of activations."""

    kind: Literal["NCHW", "NHWC", "tokens"]
    height: int
    width: int
    """In cells."""
    prefix: int = 0
    """Tokens before the first cell's; they belong to no part of the picture."""

    @property
    def channel_axis(self) -> int:
        """Of a tensor with the batch first."""
        return {"NCHW": 1, "NHWC": 3, "tokens": 2}[self.kind]

    @property
    def cell_axes(self) -> tuple[int, ...]:
        """Of a tensor with the batch first."""
        return {"NCHW": (2, 3), "NHWC": (1, 2), "tokens": (1,)}[self.kind]

    def over_cells(self, values: NDArray[np.float64], elsewhere: float) -> NDArray[np.float64]:
        """A value for each cell, `[h, w]`, in a shape that broadcasts against activations.

        Args:
            values: row by row.
            elsewhere: the value of the tokens before the first cell's.
        """
        if self.kind == "NCHW":
            return values[None, None]
        if self.kind == "NHWC":
            return values[None, :, :, None]
        return np.concatenate([np.full(self.prefix, elsewhere), values.ravel()])[None, :, None]

    def over_channels(self, values: ArrayLike) -> NDArray[np.float64]:
        """A value for each channel, `[C]`, in a shape that broadcasts against activations."""
        shape = [1] * (3 if self.kind == "tokens" else 4)
        shape[self.channel_axis] = -1
        return np.asarray(values, dtype=np.float64).reshape(shape)

    def channels_first(self, activations: "Tensor") -> "Tensor":
        """The activations of the cells, `[N, C, h, w]`."""
        if self.kind == "NCHW":
            return activations
        if self.kind == "NHWC":
            return activations.permute(0, 3, 1, 2)
        cells = activations[:, self.prefix :].transpose(1, 2)
        return cells.reshape(*cells.shape[:2], self.height, self.width)


def grids_below(seen: Iterable[Grid]) -> frozenset[Grid]:
    """The resolutions that a network may work at: those that its convolutions give, and their halves.

    Networks of patches halve their resolution by merging cells, which no convolution shows.
    """
    grids: set[Grid] = set()
    for height, width in seen:
        while min(height, width) > 1 and (height, width) not in grids:
            grids.add((height, width))
            height, width = -(-height // 2), -(-width // 2)
        # An odd side is halved up or down, as the padding is.
    floors = {(height // 2, width // 2) for height, width in grids if height % 2 or width % 2}
    return frozenset(grids | {grid for grid in floors if min(grid) > 1})


def layout_of(shape: tuple[int, ...], grids: frozenset[Grid]) -> Layout | None:
    """The layout of a tensor of this shape (with the batch first), or None when it has no cells of the picture."""
    if len(shape) == 4:
        for kind, size in (("NCHW", shape[2:]), ("NHWC", shape[1:3])):
            if size in grids:
                return Layout(kind, *size)  # type: ignore[arg-type]
    if len(shape) == 3:
        fitting = [grid for grid in grids if 0 <= shape[1] - grid[0] * grid[1] <= MOST_PREFIX_TOKENS]
        if fitting:
            height, width = max(fitting, key=lambda grid: grid[0] * grid[1])
            return Layout("tokens", height, width, shape[1] - height * width)
    return None
