"""How activations lie over the picture: as planes, as rows of cells, or as a sequence of tokens."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

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

    def channels_first(self, activations: Tensor) -> Tensor:
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
