"""The learning rate over a run."""

import math

__all__ = ["learning_rate"]


def learning_rate(step: int, total: int, peak: float, warmup_fraction: float) -> float:
    """Linear warm-up to `peak`, then half a cosine down to zero (Loshchilov and Hutter, SGDR, 2017, without restarts).

    Args:
        step: from 0 to `total` - 1.
        total: steps of the whole run.
        peak: the largest learning rate.
        warmup_fraction: share of the run in which it rises.
    """
    warmup = max(1, round(total * warmup_fraction))
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))
