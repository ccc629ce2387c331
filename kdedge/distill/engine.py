"""The training loop."""

import itertools
import json
import math
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.optim import SGD

from kdedge.data import Dataset
from kdedge.distill.augment import shift_and_flip
from kdedge.distill.checkpoint import restore, save_checkpoint, save_weights
from kdedge.distill.compute import Compute
from kdedge.distill.evaluate import Beliefs, agreement_metrics, examine
from kdedge.distill.lesson import Lesson
from kdedge.distill.losses import TAUGHT_TERMS, TERMS
from kdedge.distill.recipe import Recipe
from kdedge.distill.schedule import learning_rate
from kdedge.distill.watched import Watched
from kdedge.models.run_folder import BEST, LAST, METRICS
from kdedge_runtime.errors import KdedgeError
from kdedge_runtime.files import write_whole

__all__ = ["Observer", "Trainer"]


class Observer(Protocol):
    """Who is told how training goes."""

    def on_step(self, epoch: int, step: int, steps: int, parts: Tensor) -> None:
        """After every step; `parts` `[terms]` on the device are the epoch's loss sums so far (reading them waits)."""

    def on_epoch(self, metrics: dict[str, Any]) -> None:
        """After every epoch, with the line that went into `metrics.jsonl`."""


@dataclass(frozen=True)
class _OnDevice:
    images: Tensor
    """uint8 `[N, H, W, 3]`."""
    targets: Tensor
    """int64 `[N]`."""


class Trainer:
    """One run: a student, perhaps a teacher, data on the device, a recipe.

    Everything random is drawn from generators seeded by the run's seed and the epoch, so that an epoch is the same
    whether training came to it in one go or was resumed before it.
    """

    def __init__(
        self, student: Watched, teacher: Watched | None, data: Dataset, recipe: Recipe, compute: Compute
    ) -> None:
        self.student, self.teacher, self.recipe, self.compute = student, teacher, recipe, compute
        if teacher is not None:
            teacher.eval().requires_grad_(False)
        self.train = _on_device(data.train.images, data.train.targets, compute)
        self.val = _on_device(data.val.images, data.val.targets, compute)
        self.optimizer = SGD(
            student.model.parameters(),
            lr=recipe.learning_rate,
            momentum=0.9,
            nesterov=True,
            weight_decay=recipe.weight_decay,
        )

    @cached_property
    def teacher_beliefs(self) -> Beliefs | None:
        """What the teacher says of the validation images, and why; None without a teacher."""
        return None if self.teacher is None else examine(self.teacher, self.val.images, self.compute)

    @property
    def teacher_top1(self) -> float | None:
        """The teacher's share of right answers on the validation images; None without a teacher."""
        beliefs = self.teacher_beliefs
        return None if beliefs is None else agreement_metrics(beliefs, self.val.targets, None)["val_top1"]

    @property
    def _is_taught(self) -> bool:
        """Whether any term asks the teacher; without one it is looked at in validation only."""
        return not TAUGHT_TERMS.isdisjoint(self.recipe.loss)

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in the training set; a last, smaller one is left out where there is another."""
        return max(1, len(self.train.images) // self.recipe.batch_size)

    def run(self, folder: Path, observer: Observer, *, resume: bool) -> dict[str, Any]:
        """Train to the last epoch of the recipe.

        Args:
            folder: the run folder; after every epoch it holds all that is needed to go on.
            observer: who is told.
            resume: go on from the folder's checkpoint, if it has one.

        Returns:
            The `best` epoch by validation and the `last` one, as in `metrics.jsonl`, and the `seconds` of all epochs.

        Raises:
            KdedgeError: the loss is no longer a number, or a checkpoint cannot be written.
        """
        history: list[dict[str, Any]] = []
        if resume and (folder / LAST).is_file():
            history = restore(folder / LAST, self.student.model, self.optimizer)["history"]
        _write_history(folder / METRICS, history)
        best = max(history, key=_merit, default=None)
        for epoch in range(len(history), self.recipe.epochs):
            started = time.monotonic()
            losses = self._train_epoch(epoch, observer)
            metrics = {"epoch": epoch + 1, **losses, **self._validate()}
            metrics["seconds"] = round(time.monotonic() - started, 3)
            if best is None or _merit(metrics) > _merit(best):
                best = metrics
                save_weights(folder / BEST, self.student.model, {"epoch": epoch + 1})
            history.append(metrics)
            # The checkpoint comes last: a run killed before it repeats the epoch, and writes the same files again.
            with (folder / METRICS).open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(metrics) + "\n")
            save_checkpoint(folder / LAST, self.student.model, self.optimizer, {"history": history})
            observer.on_epoch(metrics)
        assert best is not None
        seconds = round(sum(line["seconds"] for line in history), 1)
        return {"best": best, "last": history[-1], "seconds": seconds}

    def seconds_per_epoch(self, steps: int = 6) -> float:
        """Measure a few steps on the CPU, without leaving a trace in weights, buffers or random numbers."""
        model = self.student.model
        before = {name: value.clone() for name, value in model.state_dict().items()}
        times = []
        with torch.random.fork_rng(devices=[]):
            self.student.train()
            for images, targets in itertools.islice(self._batches(0), steps):
                started = time.perf_counter()
                torch.autograd.backward(torch.stack(list(self._losses(images, targets).values())).sum())
                self.optimizer.zero_grad(set_to_none=True)
                times.append(time.perf_counter() - started)
        model.load_state_dict(before)
        # The first steps set things up, and any step can be held up by something else on the machine.
        return statistics.median(times) * self.steps_per_epoch

    def _train_epoch(self, epoch: int, observer: Observer) -> dict[str, Any]:
        recipe, steps = self.recipe, self.steps_per_epoch
        torch.manual_seed(_seed(recipe.seed, epoch, "model"))  # dropout and stochastic depth draw from here
        self.student.train()
        sums = torch.zeros(len(recipe.loss), device=self.compute.device)
        weights = torch.tensor(list(recipe.loss.values()), device=self.compute.device)
        rate = 0.0
        for step, (images, targets) in enumerate(self._batches(epoch)):
            rate = learning_rate(
                epoch * steps + step, recipe.epochs * steps, recipe.learning_rate, recipe.warmup_fraction
            )
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            terms = torch.stack(list(self._losses(images, targets).values()))
            torch.autograd.backward((terms * weights).sum())
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            sums += terms.detach()
            observer.on_step(epoch, step + 1, steps, sums)
        means = (sums / steps).tolist()
        if not all(map(math.isfinite, means)) or not _is_finite(self.student.model):
            raise KdedgeError(
                f"The loss is not a number any more in epoch {epoch + 1} (learning rate {rate:.3g}). The last good "
                "checkpoint is intact. Start again in another --out with a smaller rate, such as "
                f"--lr {recipe.learning_rate / 4:.3g}."
            )
        total = sum(weight * mean for weight, mean in zip(recipe.loss.values(), means, strict=True))
        return {
            "loss": total,
            **{f"loss_{name}": mean for name, mean in zip(recipe.loss, means, strict=True)},
            "lr": rate,
        }

    def _losses(self, images: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """The terms of the loss on one batch, unweighted."""
        with self.compute.autocast():
            student = self.student(images)
            with torch.no_grad():
                teacher = self.teacher(images) if self.teacher is not None and self._is_taught else None
        lesson = Lesson(student, teacher, targets, self.recipe.temperature)
        return {name: TERMS[name](lesson) for name in self.recipe.loss}

    def _batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        recipe, count = self.recipe, len(self.train.images)
        generator = torch.Generator(self.compute.device).manual_seed(_seed(recipe.seed, epoch, "data"))
        order = torch.randperm(count, generator=generator, device=self.compute.device)
        shift = round(recipe.shift_fraction * self.train.images.shape[1])
        for step in range(self.steps_per_epoch):
            chosen = order[step * recipe.batch_size : (step + 1) * recipe.batch_size]
            images = shift_and_flip(self.train.images[chosen], generator, shift=shift, flip=recipe.flip)
            yield images, self.train.targets[chosen]

    def _validate(self) -> dict[str, float]:
        teacher = self.teacher_beliefs
        classes = None if teacher is None else teacher.logits.argmax(dim=1)
        student = examine(self.student, self.val.images, self.compute, classes)
        return agreement_metrics(student, self.val.targets, teacher)


def _on_device(images: Any, targets: Any, compute: Compute) -> _OnDevice:
    return _OnDevice(torch.from_numpy(images).to(compute.device), torch.from_numpy(targets).to(compute.device))


def _is_finite(model: nn.Module) -> bool:
    """Whether all weights and statistics are numbers: the last step of an epoch can spoil them after its loss."""
    values = [value.isfinite().all() for value in model.state_dict().values() if value.is_floating_point()]
    return bool(torch.stack(values).all())


def _merit(metrics: dict[str, Any]) -> tuple[float, ...]:
    """What makes an epoch better: accuracy, then agreement, then the maps, then the loss (small sets tie often)."""
    return (
        *(metrics.get(name, 0.0) for name in ("val_top1", "val_agreement", "val_map_pearson")),
        -metrics["val_loss"],
    )


def _seed(seed: int, epoch: int, use: Literal["model", "data"]) -> int:
    return (seed * 1_000_003 + epoch) * 2 + (use == "data")


def _write_history(path: Path, history: list[dict[str, Any]]) -> None:
    write_whole(path, "".join(json.dumps(metrics) + "\n" for metrics in history))
