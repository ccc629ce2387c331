"""One pass over the training pictures."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from kdedge.config.training_recipe import Recipe
from kdedge.training.augmentation.augmentation_plan import seed_of
from kdedge.training.batches import Batches
from kdedge.training.interruption import StopRequested, never
from kdedge.training.schedule import learning_rate
from kdedge.training.step import Learner
from kdedge_runtime.errors import KdedgeError

__all__ = ["Position", "train_epoch"]

STOP_EVERY = 16
"""Of several processes, how often they agree whether to stop: asking the others waits for them."""
_MODEL = 1
"""A use of random numbers, see `seed_of`."""


@dataclass(frozen=True)
class Position:
    """How far a run has come."""

    history: tuple[dict[str, Any], ...] = ()
    """The figures of every complete epoch."""
    step: int = 0
    """Steps done of the epoch after those."""
    seconds: float = 0.0
    """How long they took."""
    state: dict[str, Tensor] = field(default_factory=dict)
    """The loss sums and the random numbers after them."""


def train_epoch(
    learner: Learner,
    batches: Batches,
    recipe: Recipe,
    at: Position,
    on_step: Callable[[int, int, int, Tensor], None] = lambda *_: None,
    must_stop: Callable[[], bool] = never,
) -> dict[str, Any] | Position:
    """Train the epoch after those that are complete, or what is left of it.

    Args:
        learner: the student and its optimizer.
        batches: what it learns from.
        recipe: see `Recipe`.
        at: how far the run has come.
        on_step: hears (epoch, steps done, steps, loss sums `[terms]` on the device) after every step.
        must_stop: asked after every step.

    Returns:
        The epoch's mean losses and its last learning rate; or, where it was broken off, how far it came.

    Raises:
        KdedgeError: the loss is no longer a number.
    """
    steps, epoch, device, group = batches.per_epoch, len(at.history), learner.compute.device, learner.group
    started = time.monotonic()
    learner.student.train()
    weights = torch.tensor(list(recipe.loss.values()), device=device)
    if at.step:
        sums = at.state["sums"].to(device)
        _set_random_state(at.state, learner)
    else:
        sums = torch.zeros(len(recipe.loss), device=device)
        # Dropout and stochastic depth draw from here, in every process something else.
        torch.manual_seed(seed_of(recipe.seed, epoch * group.size + group.rank, _MODEL))
    rate, step = 0.0, at.step
    try:
        for batch in batches.of(epoch, at.step, must_stop):
            rate = learning_rate(
                epoch * steps + step, recipe.epochs * steps, recipe.learning_rate, recipe.warmup_fraction
            )
            sums += learner.learn(batch.images, batch.targets, batch.taught, weights, rate)
            step += 1
            on_step(epoch, step, steps, sums)
            if step < steps and (group.size == 1 or step % STOP_EVERY == 0) and group.any(must_stop(), device):
                raise StopRequested
    except StopRequested:
        _means(sums, max(step, 1), learner, recipe, epoch, rate)
        seconds = at.seconds + time.monotonic() - started
        return Position(at.history, step, seconds, {"sums": sums, **_random_state(learner)})
    means = _means(sums, steps, learner, recipe, epoch, rate)
    return {
        "loss": sum(weight * mean for weight, mean in zip(recipe.loss.values(), means, strict=True)),
        **{f"loss_{name}": mean for name, mean in zip(recipe.loss, means, strict=True)},
        "lr": rate,
    }


def _means(sums: Tensor, steps: int, learner: Learner, recipe: Recipe, epoch: int, rate: float) -> list[float]:
    """The mean of each term over all processes, which share their sums; what follows may be kept.

    Raises:
        KdedgeError: the loss, a weight or a statistic is no longer a number.
    """
    learner.group.mean(sums)
    means: list[float] = (sums / steps).tolist()
    if learner.group.any(not (all(map(math.isfinite, means)) and learner.is_finite), learner.compute.device):
        raise KdedgeError(
            f"The loss is not a number any more in epoch {epoch + 1} (learning rate {rate:.3g}). The last good "
            "checkpoint is intact. Start again in another --out with a smaller rate, such as "
            f"--lr {recipe.learning_rate / 4:.3g}."
        )
    return means


def _random_state(learner: Learner) -> dict[str, Tensor]:
    """The random numbers of every process, `[processes, bytes]` a generator."""
    device, group = learner.compute.device, learner.group
    state = {"random_cpu": group.stack(torch.get_rng_state())}
    return state | ({"random_cuda": group.stack(torch.cuda.get_rng_state(device))} if device.type == "cuda" else {})


def _set_random_state(state: dict[str, Tensor], learner: Learner) -> None:
    device, rank = learner.compute.device, learner.group.rank
    # Another number of processes than before cannot draw the same numbers.
    torch.set_rng_state(state["random_cpu"][rank % len(state["random_cpu"])])
    if device.type == "cuda" and "random_cuda" in state:
        torch.cuda.set_rng_state(state["random_cuda"][rank % len(state["random_cuda"])], device)
