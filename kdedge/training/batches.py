"""Batches of an epoch: order, augmentation, labels and teacher outputs."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from kdedge.losses.loss_inputs import ModelOutput
from kdedge.tasks import TRAINING_TASKS
from kdedge.training.augmentation.augmentation_plan import AugmentationPlan, seed_of
from kdedge.training.distributed import ProcessGroup
from kdedge.training.interruption import never_stop
from kdedge.training.sample_store import SampleStore
from kdedge.training.teachers.targets import TeacherTargets

__all__ = ["Batch", "Batches"]

_ORDER, _MIX = 0, 3
"""Uses of random numbers, see `seed_of`."""


@dataclass(frozen=True)
class Batch:
    """Inputs of one training step."""

    samples: Tensor
    """Augmented samples of this process, `[n, …]`; images are uint8 RGB `[n, H, W, 3]`."""
    targets: Tensor
    """Targets of the loss, float32 `[n, K]`; for classification distributions."""
    teacher_output: ModelOutput | None


class Batches:
    """Iterable over training batches.

    All random numbers come from generators seeded by the run's seed and the epoch. An epoch is therefore identical
    whether training was resumed or not, and for any number of processes.
    """

    def __init__(
        self,
        samples: SampleStore,
        views: AugmentationPlan,
        teacher_targets: TeacherTargets,
        classes: int,
        group: ProcessGroup,
        *,
        batch_size: int,
        task: str,
    ) -> None:
        """Initialize the batches.

        Args:
            samples: training samples.
            views: augmentation schedule; its seed also determines the order and the mixing.
            teacher_targets: source of teacher outputs.
            classes: number of outputs, K.
            group: processes that share every batch.
            batch_size: samples per step, over all processes.
            task: task of the dataset, which encodes the targets; a key of `kdedge.tasks.TRAINING_TASKS`.
        """
        self.samples, self.classes, self.batch_size = samples, classes, batch_size
        self._task = TRAINING_TASKS[task]
        self.augmentation = views.augmenter.settings
        """Settings that apply to the samples."""
        self._views, self._guidance, self._group = views, teacher_targets, group

    @property
    def per_epoch(self) -> int:
        """Number of full batches per epoch; a smaller last batch is dropped unless it is the only one."""
        return max(1, len(self.samples) // self.batch_size)

    def targets(self, index: Tensor) -> Tensor:
        """Return the targets of the loss for samples at these indices, int64 `[n]`, without mixing."""
        return self._task.targets(self.samples.targets[index], self.classes)

    def of(self, epoch: int, start: int = 0, must_stop: Callable[[], bool] = never_stop) -> Iterator[Batch]:
        """Yield this process's part of every batch of an epoch, starting at a step.

        Raises:
            StopRequested: `must_stop` returned True before the first batch was ready.
        """
        views, group, device = self._views, self._group, self.samples.targets.device
        generator = torch.Generator().manual_seed(seed_of(views.seed, epoch, _ORDER))
        order = torch.randperm(len(self.samples), generator=generator).to(device)
        chosen = torch.split(order[: self.per_epoch * self.batch_size], self.batch_size)[start:]
        view = views.draw(epoch)
        self._guidance.begin(epoch, must_stop)
        mixes = views.augmenter.settings.mixes
        mine = [_with_partner(batch, group) if mixes else group.shard(batch) for batch in chosen]
        for step, (index, originals) in enumerate(self.samples.batches(mine), start):
            samples = views.augmenter.apply(originals, view.take(index))
            targets = self.targets(index)
            if mixes:
                mixing = self._mixing(epoch * self.per_epoch + step, len(chosen[0]))
                index, (samples, targets) = index[1:], views.augmenter.blend(samples, targets, mixing)
            yield Batch(samples, targets, self._guidance.prediction(index, samples))

    def _mixing(self, step: int, count: int) -> tuple[Tensor, ...]:
        """Draw the mixing parameters of a batch and return the part of this process."""
        generator = torch.Generator(self.samples.targets.device).manual_seed(seed_of(self._views.seed, step, _MIX))
        return tuple(map(self._group.shard, self._views.augmenter.draw_mixing(count, generator)))


def _with_partner(batch: Tensor, group: ProcessGroup) -> Tensor:
    """Return this process's part of a batch, preceded by the partner of its first row."""
    return torch.cat((group.shard(batch.roll(1))[:1], group.shard(batch)))
