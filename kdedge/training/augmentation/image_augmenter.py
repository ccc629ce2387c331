"""Augmentation of images of one size."""

from dataclasses import dataclass

import torch
from torch import Tensor

from kdedge.config.augmentation_settings import Augmentation
from kdedge.training.augmentation.mixing import Mixing, blend, draw_mixing
from kdedge.training.augmentation.transforms import AugmentationParams, augment, draw_augmentation

__all__ = ["ImageAugmenter"]


@dataclass(frozen=True)
class ImageAugmenter:
    """Geometry, erasing and mixing of images uint8 RGB `[n, height, width, 3]`; an `Augmenter`."""

    settings: Augmentation
    height: int
    width: int

    def draw(self, count: int, generator: torch.Generator) -> AugmentationParams:
        """Draw the parameters of every image; see `draw_augmentation`."""
        return draw_augmentation(self.settings, count, self.height, self.width, generator)

    def apply(self, samples: Tensor, params: AugmentationParams) -> Tensor:
        """Augment images; see `augment`."""
        return augment(samples, params)

    def draw_mixing(self, count: int, generator: torch.Generator) -> Mixing:
        """Draw the mixing parameters of a batch; see `draw_mixing`."""
        return draw_mixing(self.settings, count, self.height, self.width, generator)

    def blend(self, samples: Tensor, targets: Tensor, mixing: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """Mix images with their predecessors; see `blend`."""
        return blend(samples, targets, Mixing(*mixing))
