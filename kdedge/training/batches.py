"""The batches of an epoch: order, augmentation, labels, the teacher's answers."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from kdedge.config.training_recipe import Recipe
from kdedge.losses.loss_inputs import Answer
from kdedge.training.augmentation import Mixing, blend, draw_mixing, transform
from kdedge.training.augmentation.augmentation_plan import Views, seed_of
from kdedge.training.distributed import Group
from kdedge.training.image_store import Images
from kdedge.training.interruption import never
from kdedge.training.teachers.targets import Guidance

__all__ = ["Batch", "Batches"]

_ORDER, _MIX = 0, 3
"""Uses of random numbers, see `seed_of`."""


@dataclass(frozen=True)
class Batch:
    """What one step sees."""

    images: Tensor
    """uint8 RGB `[n, H, W, 3]`, augmented; this process's part."""
    targets: Tensor
    """float32 `[n, K]`."""
    taught: Answer | None


class Batches:
    """Training pictures, batch by batch.

    Everything random is drawn from generators seeded by the run's seed and the epoch, so that an epoch is the same
    whether training came to it in one go or was resumed before it, and whatever the number of processes.
    """

    def __init__(
        self, images: Images, views: Views, guidance: Guidance, recipe: Recipe, classes: int, group: Group
    ) -> None:
        """Put the parts together.

        Args:
            images: the pictures.
            views: how they are augmented.
            guidance: the teacher's answers.
            recipe: for the size of batches, the seed and mixing.
            classes: their number, K.
            group: the processes that share every batch.
        """
        self.images, self.classes = images, classes
        self._views, self._guidance, self._recipe, self._group = views, guidance, recipe, group

    @property
    def per_epoch(self) -> int:
        """Full batches in the training set; a last, smaller one is left out where there is another."""
        return max(1, len(self.images) // self._recipe.batch_size)

    def of(self, epoch: int, start: int = 0, must_stop: Callable[[], bool] = never) -> Iterator[Batch]:
        """This process's part of every batch of an epoch, from a step on.

        Raises:
            StopRequested: `must_stop` said yes before the first of them was ready.
        """
        recipe, group, device = self._recipe, self._group, self.images.targets.device
        generator = torch.Generator().manual_seed(seed_of(recipe.seed, epoch, _ORDER))
        order = torch.randperm(len(self.images), generator=generator).to(device)
        chosen = torch.split(order[: self.per_epoch * recipe.batch_size], recipe.batch_size)[start:]
        view = self._views.draw(epoch)
        self._guidance.begin(epoch, must_stop)
        mixes = recipe.augmentation.mixes
        mine = [_with_partner(batch, group) if mixes else group.share(batch) for batch in chosen]
        for step, (index, pictures) in enumerate(self.images.batches(mine), start):
            images = transform(pictures, view.take(index))
            targets = F.one_hot(self.images.targets[index], self.classes).float()
            if mixes:
                mixing = self._mixing(epoch * self.per_epoch + step, len(chosen[0]))
                index, (images, targets) = index[1:], blend(images, targets, mixing)
            yield Batch(images, targets, self._guidance.answer(index, images))

    def _mixing(self, step: int, count: int) -> Mixing:
        """How this process's part of a batch of so many pictures is mixed, drawn with those of all others."""
        generator = torch.Generator(self.images.targets.device).manual_seed(seed_of(self._recipe.seed, step, _MIX))
        drawn = draw_mixing(self._recipe.augmentation, count, *self.images.side, generator)
        return Mixing(*map(self._group.share, drawn))


def _with_partner(batch: Tensor, group: Group) -> Tensor:
    """This process's part of a batch, and in front of it the row before, which its first row is mixed with."""
    return torch.cat((group.share(batch.roll(1))[:1], group.share(batch)))
