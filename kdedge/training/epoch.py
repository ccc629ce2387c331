"""One epoch of training."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from kdedge.config.resolved_config import ResolvedConfig
from kdedge.training.augmentation.augmentation_plan import seed_of
from kdedge.training.batches import Batches
from kdedge.training.interruption import StopRequested, never_stop
from kdedge.training.schedule import learning_rate
from kdedge.training.step import TrainStep
from kdedge_runtime.errors import KdedgeError

__all__ = ["TrainState", "train_epoch"]

STOP_EVERY = 16
"""Interval in steps at which several processes agree on stopping; each agreement synchronizes them."""
_MODEL = 1
"""Use of random numbers, see `seed_of`."""


@dataclass(frozen=True)
class TrainState:
    """Progress of a run."""

    history: tuple[dict[str, Any], ...] = ()
    """Metrics of every complete epoch."""
    step: int = 0
    """Number of completed steps of the current epoch."""
    seconds: float = 0.0
    """Duration of these steps in seconds."""
    state: dict[str, Tensor] = field(default_factory=dict)
    """Loss sums and random states after these steps."""


def train_epoch(
    train_step: TrainStep,
    batches: Batches,
    config: ResolvedConfig,
    at: TrainState,
    on_step: Callable[[int, int, int, Tensor], None] = lambda *_: None,
    must_stop: Callable[[], bool] = never_stop,
) -> dict[str, Any] | TrainState:
    """Train the next epoch, or the rest of an interrupted one.

    Args:
        train_step: student and optimizer.
        batches: training batches.
        config: settings of the run.
        at: progress of the run.
        on_step: called with (epoch, completed steps, steps, loss sums `[terms]` on the device) after every step.
        must_stop: polled after every step.

    Returns:
        Mean losses and the last learning rate of the epoch, or the progress if it was interrupted.

    Raises:
        KdedgeError: the loss is not finite.
    """
    first = int(config.fit_head)  # the schedule starts after the epoch that fits the last layer
    steps, epoch, device, group = batches.per_epoch, len(at.history), train_step.compute.device, train_step.group
    started = time.monotonic()
    train_step.student.train()
    weights = torch.tensor(list(config.loss.values()), device=device)
    if at.step:
        sums = at.state["sums"].to(device)
        _set_random_state(at.state, train_step)
    else:
        sums = torch.zeros(len(config.loss), device=device)
        # Dropout and stochastic depth use this generator, which differs between processes.
        torch.manual_seed(seed_of(config.seed, epoch * group.size + group.rank, _MODEL))
    rate, step = 0.0, at.step
    try:
        for batch in batches.of(epoch, at.step, must_stop):
            done, total = (epoch - first) * steps + step, (config.epochs - first) * steps
            rate = learning_rate(done, total, config.learning_rate, config.warmup_fraction)
            sums += train_step.learn(batch.samples, batch.targets, batch.teacher_output, weights, rate)
            step += 1
            on_step(epoch, step, steps, sums)
            if step < steps and (group.size == 1 or step % STOP_EVERY == 0) and group.any(must_stop(), device):
                raise StopRequested
    except StopRequested:
        _means(sums, max(step, 1), train_step, config, epoch)
        seconds = at.seconds + time.monotonic() - started
        return TrainState(at.history, step, seconds, {"sums": sums, **_random_state(train_step)})
    means = _means(sums, steps, train_step, config, epoch)
    return {
        "loss": sum(weight * mean for weight, mean in zip(config.loss.values(), means, strict=True)),
        **{f"loss_{name}": mean for name, mean in zip(config.loss, means, strict=True)},
        "lr": rate,
    }


def _means(sums: Tensor, steps: int, train_step: TrainStep, config: ResolvedConfig, epoch: int) -> list[float]:
    """Compute the mean of each term over all processes; the sums are reduced in place.

    Raises:
        KdedgeError: the loss, a weight or a statistic is not finite.
    """
    train_step.group.mean(sums)
    means: list[float] = (sums / steps).tolist()
    if train_step.group.any(not (all(map(math.isfinite, means)) and train_step.is_finite), train_step.compute.device):
        odd = [name for name, mean in zip(config.loss, means, strict=True) if not math.isfinite(mean)]
        kept = f"The checkpoint of epoch {epoch} is kept. " if epoch else ""
        raise KdedgeError(
            f"The loss is not finite in epoch {epoch + 1}{f' (term {odd[0]})' if odd else ''}. {kept}Start again in "
            f"another --out with a learning rate below {config.learning_rate:.3g}, such as "
            f"--lr {config.learning_rate / 4:.3g}."
        )
    return means


def _random_state(train_step: TrainStep) -> dict[str, Tensor]:
    """Collect the random states of all processes, `[processes, bytes]` per generator."""
    device, group = train_step.compute.device, train_step.group
    state = {"random_cpu": group.stack(torch.get_rng_state())}
    return state | ({"random_cuda": group.stack(torch.cuda.get_rng_state(device))} if device.type == "cuda" else {})


def _set_random_state(state: dict[str, Tensor], train_step: TrainStep) -> None:
    device, rank = train_step.compute.device, train_step.group.rank
    # A different number of processes cannot reproduce the same random numbers.
    torch.set_rng_state(state["random_cpu"][rank % len(state["random_cpu"])])
    if device.type == "cuda" and "random_cuda" in state:
        torch.cuda.set_rng_state(state["random_cuda"][rank % len(state["random_cuda"])], device)
