"""What a few batches tell before training: how long an epoch takes, how large each term is, how large a step may be."""

import itertools
import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

from kdedge.training.batches import Batch
from kdedge.training.step import Learner
from kdedge.training.trainer import Trainer

__all__ = ["balanced_weights", "measured_terms", "seconds_per_epoch", "steady_rate"]

_TRIED_ON, _TRIALS = 8, 6
"""Batches that a learning rate is tried on, and how many rates are, each a quarter of the one before."""


def seconds_per_epoch(trainer: Trainer, steps: int = 6) -> float:
    """Measure a few steps on the CPU, of the first epoch over again where it has fewer."""
    times = []
    with _without_a_trace(trainer.learner):
        batches = itertools.chain.from_iterable(map(trainer.batches.of, itertools.repeat(0)))
        for _ in range(steps):
            started = time.perf_counter()
            batch = next(batches)  # the teacher's forward pass belongs to the step
            terms = trainer.learner.terms(batch.images, batch.targets, batch.taught)
            torch.autograd.backward(terms.sum())
            trainer.learner.optimizer.zero_grad(set_to_none=True)
            times.append(time.perf_counter() - started)
    # The first step sets things up, such as the teacher's answers that are kept, and any can be held up by others.
    return statistics.median(times) * trainer.batches.per_epoch


def measured_terms(trainer: Trainer, steps: int = 4) -> list[float]:
    """The mean of each unweighted term over the first batches, with the student as it is."""
    with _without_a_trace(trainer.learner), torch.no_grad():
        terms = [
            trainer.learner.terms(batch.images, batch.targets, batch.taught) for batch in _first_batches(trainer, steps)
        ]
    mean = torch.stack(terms).mean(dim=0)
    trainer.learner.group.mean(mean)
    values: list[float] = mean.tolist()
    return values


def balanced_weights(loss: dict[str, float | None], sizes: list[float]) -> dict[str, float]:
    """Give every term without a weight one that makes it as large, at first, as those with one are together.

    Where no term has a weight, each is made 1.

    Args:
        loss: term name to weight, or None for one to be found.
        sizes: the measured mean of each term.
    """
    given = sum(weight * size for weight, size in zip(loss.values(), sizes, strict=True) if weight is not None)
    aim = given if given > 0 else 1.0
    return {
        name: float(f"{aim / max(size, 1e-12):.3g}") if weight is None else weight
        for (name, weight), size in zip(loss.items(), sizes, strict=True)
    }


def steady_rate(trainer: Trainer, loss: Mapping[str, float], rate: float) -> float:
    """The largest of a learning rate, a quarter of it and so on whose first steps lower the loss.

    How large a step a trained network bears differs by orders of magnitude where statistics of batches do not bound it.

    Args:
        trainer: is left as it was.
        loss: weights of the terms.
        rate: to begin with.

    Returns:
        The rate; the smallest that is tried where none lowers the loss.
    """
    learner = trainer.learner
    weights = torch.tensor(list(loss.values()), device=learner.compute.device)
    before = float(torch.tensor(measured_terms(trainer, _TRIED_ON)) @ weights.cpu())
    for rate in [rate / 4**trial for trial in range(_TRIALS)]:
        with _without_a_trace(learner):
            terms = [
                learner.learn(batch.images, batch.targets, batch.taught, weights, rate)
                for batch in _first_batches(trainer, _TRIED_ON)
            ]
        learner.optimizer.state.clear()  # the steps' momentum
        after = torch.stack(terms).mean(dim=0) @ weights
        learner.group.mean(after)
        if float(after) < before:  # which no number that is not finite is
            break
    return rate


def _first_batches(trainer: Trainer, steps: int) -> Iterator[Batch]:
    """Those of the first epochs, until there are so many."""
    return itertools.islice(itertools.chain.from_iterable(map(trainer.batches.of, itertools.count())), steps)


@contextmanager
def _without_a_trace(learner: Learner) -> Iterator[None]:
    """Training mode inside; weights, buffers and random numbers as before afterwards."""
    model = learner.student.model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    devices = [learner.compute.device] if learner.compute.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        learner.student.train()
        yield
    model.load_state_dict(before)
