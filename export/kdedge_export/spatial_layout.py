"""Layout of activations over the image: planes, channels-last planes, or a token sequence. It does not import torch."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["MAX_PREFIX_TOKENS", "SpatialLayout", "grids_below", "layout_of"]

MAX_PREFIX_TOKENS = 16
"""Maximum number of class, distillation and register tokens before the image tokens."""
GridSize = tuple[int, int]


@dataclass(frozen=True)
class SpatialLayout:
    """Spatial layout of an activation tensor."""

    kind: Literal["NCHW", "NHWC", "tokens"]
    height: int
    width: int
    """Height and width in spatial positions."""
    prefix: int = 0
    """Number of tokens before the first image token."""

    @property
    def channel_axis(self) -> int:
        """Channel axis of a batched tensor."""
        return {"NCHW": 1, "NHWC": 3, "tokens": 2}[self.kind]

    @property
    def position_axes(self) -> tuple[int, ...]:
        """Spatial axes of a batched tensor."""
        return {"NCHW": (2, 3), "NHWC": (1, 2), "tokens": (1,)}[self.kind]

    def over_positions(self, values: NDArray[np.float64], elsewhere: float) -> NDArray[np.float64]:
        """Reshape one value per spatial position, `[h, w]`, to broadcast against activations.

        Args:
            values: array `[h, w]`.
            elsewhere: value for the prefix tokens.
        """
        if self.kind == "NCHW":
            return values[None, None]
        if self.kind == "NHWC":
            return values[None, :, :, None]
        tokens: NDArray[np.float64] = np.concatenate([np.full(self.prefix, elsewhere), values.ravel()])
        return tokens[None, :, None]

    def over_channels(self, values: ArrayLike) -> NDArray[np.float64]:
        """Reshape one value per channel, `[C]`, to broadcast against activations."""
        shape = [1] * (3 if self.kind == "tokens" else 4)
        shape[self.channel_axis] = -1
        return np.asarray(values, dtype=np.float64).reshape(shape)

    def channels_first(self, activations: "Tensor") -> "Tensor":
        """Return the activations of the image as `[N, C, h, w]`."""
        if self.kind == "NCHW":
            return activations
        if self.kind == "NHWC":
            return activations.permute(0, 3, 1, 2)
        positions = activations[:, self.prefix :].transpose(1, 2)
        return positions.reshape(*positions.shape[:2], self.height, self.width)


def grids_below(seen: Iterable[GridSize]) -> frozenset[GridSize]:
    """Return the resolutions a network may work at: those of its convolutions, and their halves.

    Patch-based networks halve their resolution by patch merging, which appears in no convolution.
    """
    grids: set[GridSize] = set()
    for height, width in seen:
        while min(height, width) > 1 and (height, width) not in grids:
            grids.add((height, width))
            height, width = -(-height // 2), -(-width // 2)
        # Odd sides are halved up or down, depending on the padding.
    floors = {(height // 2, width // 2) for height, width in grids if height % 2 or width % 2}
    return frozenset(grids | {grid for grid in floors if min(grid) > 1})


def layout_of(shape: tuple[int, ...], grids: frozenset[GridSize]) -> SpatialLayout | None:
    """Return the layout of a tensor of this batched shape, or None if it has no spatial positions."""
    if len(shape) == 4:
        for kind, size in (("NCHW", shape[2:]), ("NHWC", shape[1:3])):
            if size in grids:
                return SpatialLayout(kind, *size)  # type: ignore[arg-type]
    if len(shape) == 3:
        fitting = [grid for grid in grids if 0 <= shape[1] - grid[0] * grid[1] <= MAX_PREFIX_TOKENS]
        if fitting:
            height, width = max(fitting, key=lambda grid: grid[0] * grid[1])
            return SpatialLayout("tokens", height, width, shape[1] - height * width)
    return None
