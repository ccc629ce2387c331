"""Learning rate schedule."""

import math

__all__ = ["learning_rate"]


def learning_rate(step: int, total: int, peak: float, warmup_fraction: float) -> float:
    """Return the rate of a linear warmup to `peak` and a cosine decay to zero (SGDR without restarts).

    Loshchilov and Hutter, SGDR: Stochastic Gradient Descent with Warm Restarts, ICLR 2017.

    Args:
        step: step from 0 to `total` - 1.
        total: number of steps of the whole run.
        peak: maximum learning rate.
        warmup_fraction: fraction of the run for the warmup.
    """
    warmup = max(1, round(total * warmup_fraction))
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))
