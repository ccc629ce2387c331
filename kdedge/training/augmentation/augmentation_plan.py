"""Schedule of augmentation parameters over epochs."""

from typing import Any

import torch

from kdedge.modalities import Augmenter

__all__ = ["AugmentationPlan", "seed_of"]


class AugmentationPlan:
    """Fresh augmentation parameters for each epoch, or a fixed number of views in rotation.

    A view depends only on its seed and an image's index in the dataset, never on the batch order.
    """

    def __init__(
        self,
        augmenter: Augmenter,
        count: int,
        device: torch.device,
        *,
        seed: int,
        kept: int,
    ) -> None:
        """Initialize the schedule.

        Args:
            augmenter: augmentation of the modality.
            count: number of samples.
            device: device for augmentation.
            seed: seed of the run.
            kept: number of fixed views shared by all runs, independent of the seed; 0 for fresh parameters.
        """
        self.augmenter, self.seed, self.kept = augmenter, seed, kept
        self._count, self._device = count, device

    def number(self, epoch: int) -> int:
        """Return the index of the fixed view used in an epoch."""
        return epoch % self.kept

    def draw(self, epoch: int) -> Any:
        """Draw the augmentation parameters of all samples for an epoch."""
        seed = seed_of(0, self.number(epoch), 2) if self.kept else seed_of(self.seed, epoch, 2)
        # Drawn on the CPU: GPU models draw different numbers from the same seed.
        generator = torch.Generator().manual_seed(seed)
        return self.augmenter.draw(self._count, generator).to(self._device)


def seed_of(seed: int, epoch: int, use: int) -> int:
    """Derive a distinct seed for each epoch and each use of random numbers (0 to 3)."""
    return (seed * 1_000_003 + epoch) * 4 + use
