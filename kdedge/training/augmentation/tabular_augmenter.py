"""Augmentation of rows: none, since each value of a row is measured."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from kdedge.config.augmentation_settings import Augmentation
from kdedge_runtime.errors import UsageError

__all__ = ["TabularAugmenter"]


class _NoChange(NamedTuple):
    """Number of each row, int64 `[n]`."""

    rows: Tensor

    def to(self, device: torch.device) -> "_NoChange":
        return _NoChange(self.rows.to(device))

    def take(self, index: Tensor) -> "_NoChange":
        return _NoChange(self.rows[index])


@dataclass(frozen=True)
class TabularAugmenter:
    """Rows as they are; an `Augmenter`.

    Raises:
        UsageError: the settings request augmentation.
    """

    settings: Augmentation

    def __post_init__(self) -> None:
        if self.settings != Augmentation(shift=0, flip=False, photometric=0):
            raise UsageError(
                "Rows of a table are not augmented. Use the recipe table, or write shift = 0, flip = false and "
                "photometric = 0 under [augmentation] of your own, and remove --flip."
            )

    def draw(self, count: int, generator: torch.Generator) -> _NoChange:
        """Return the numbers of the rows; see `Augmenter`."""
        return _NoChange(torch.arange(count))

    def apply(self, samples: Tensor, params: _NoChange) -> Tensor:
        """Return the rows; see `Augmenter`."""
        return samples

    def draw_mixing(self, count: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Return nothing, since rows are never mixed; see `Augmenter`."""
        return ()

    def blend(self, samples: Tensor, targets: Tensor, mixing: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """Return all rows but the first, unmixed; see `Augmenter`."""
        return samples[1:], targets[1:]
