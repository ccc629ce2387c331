"""Measurements on a few batches before training: time per epoch, scale of loss terms, and learning rate."""

import itertools
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from kdedge.training.batches import Batch, Batches
from kdedge.training.step import TrainStep

__all__ = ["balanced_weights", "measure_loss_scales", "seconds_per_epoch"]

_TRIED_ON, _TRIALS = 8, 6
"""Number of batches per tested learning rate, and number of rates, each a quarter of the previous."""


def seconds_per_epoch(train_step: TrainStep, batches: Batches, steps: int = 6) -> float:
    """Estimate the seconds per epoch on a CPU from a few steps, repeating the first epoch if it is shorter."""
    times = []
    with _without_a_trace(train_step):
        repeated = itertools.chain.from_iterable(map(batches.of, itertools.repeat(0)))
        for _ in range(steps):
            started = time.perf_counter()
            batch = next(repeated)  # the teacher's forward pass is part of the step
            terms = train_step.terms(batch.samples, batch.targets, batch.teacher_output)
            torch.autograd.backward(terms.sum())
            train_step.optimizer.zero_grad(set_to_none=True)
            times.append(time.perf_counter() - started)
    # The first step includes setup such as filling the teacher cache, and any step may be delayed: use the median.
    return statistics.median(times) * batches.per_epoch


def measure_loss_scales(train_step: TrainStep, batches: Batches, steps: int = 4) -> list[float]:
    """Compute the mean of each unweighted term over the first batches, without updating the student."""
    with _without_a_trace(train_step), torch.no_grad():
        terms = [
            train_step.terms(batch.samples, batch.targets, batch.teacher_output)
            for batch in _first_batches(batches, steps)
        ]
    mean = torch.stack(terms).mean(dim=0)
    train_step.group.mean(mean)
    values: list[float] = mean.tolist()
    return values


def balanced_weights(loss: dict[str, float | None], sizes: list[float]) -> dict[str, float]:
    """Set each missing weight so that the term initially equals the sum of the weighted terms.

    If no term has a weight, each term is scaled to 1.

    Args:
        loss: mapping from term name to weight, or None for a weight to be determined.
        sizes: measured mean of each term.
    """
    given = sum(weight * size for weight, size in zip(loss.values(), sizes, strict=True) if weight is not None)
    aim = given if given > 0 else 1.0
    return {
        name: float(f"{aim / max(size, 1e-12):.3g}") if weight is None else weight
        for (name, weight), size in zip(loss.items(), sizes, strict=True)
    }


def _first_batches(batches: Batches, steps: int) -> Iterator[Batch]:
    """Yield batches from the first epochs, up to the given number."""
    return itertools.islice(itertools.chain.from_iterable(map(batches.of, itertools.count())), steps)


@contextmanager
def _without_a_trace(train_step: TrainStep) -> Iterator[None]:
    """Enter training mode, and restore weights, buffers and random states afterwards."""
    model = train_step.student.model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    devices = [train_step.compute.device] if train_step.compute.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        train_step.student.train()
        yield
    model.load_state_dict(before)
