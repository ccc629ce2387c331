"""Which augmentation of the pictures an epoch shows."""

import torch

from kdedge.training.augmentation import Augmentation, View, draw_view

__all__ = ["Views", "seed_of"]


class Views:
    """A fresh view of every picture for each epoch, or the same few in turn.

    A view depends on its seed and a picture's place in the data only, never on the order of batches.
    """

    def __init__(
        self,
        augmentation: Augmentation,
        count: int,
        side: tuple[int, int],
        device: torch.device,
        *,
        seed: int,
        kept: int,
    ) -> None:
        """Describe the views.

        Args:
            augmentation: how pictures are changed.
            count: number of pictures.
            side: their height and width in px.
            device: where they are augmented.
            seed: the run's.
            kept: how many views every run shares, whatever its seed; 0 for fresh ones.
        """
        self._augmentation = augmentation
        self._count, self._side, self._device = count, side, device
        self._seed, self._kept = seed, kept

    def number(self, epoch: int) -> int:
        """Which of the kept views an epoch shows."""
        return epoch % self._kept

    def draw(self, epoch: int) -> View:
        """The view of all pictures that an epoch shows."""
        seed = seed_of(0, self.number(epoch), 2) if self._kept else seed_of(self._seed, epoch, 2)
        # On the CPU: cards of other kinds draw other numbers from the same seed.
        generator = torch.Generator().manual_seed(seed)
        return draw_view(self._augmentation, self._count, *self._side, generator).to(self._device)


def seed_of(seed: int, epoch: int, use: int) -> int:
    """A seed of its own for each epoch and each use of random numbers (0 to 3)."""
    return (seed * 1_000_003 + epoch) * 4 + use
