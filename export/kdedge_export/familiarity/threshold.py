"""Threshold of familiarity: at most 5% of known samples lie below it, with 95% confidence.

The threshold is an order statistic of the scores of known samples. The share of the population below it has a beta
distribution for any continuous distribution of the scores. Its upper confidence bound is that of Clopper and Pearson.

Source: Wilks, Determination of Sample Sizes for Setting Tolerance Limits, Annals of Mathematical Statistics 12, 1941.
"""

import math
from dataclasses import dataclass

import numpy as np

from kdedge_runtime.util.arrays import Floats

__all__ = ["ALLOWED", "Threshold", "fewest_known", "fit_threshold", "share_bound"]

ALLOWED = 0.05
"""Largest share of known samples that may be called unknown."""
_TAIL = 0.05
"""Probability that the share is larger."""


@dataclass(frozen=True)
class Threshold:
    """Threshold with the samples it was fitted on."""

    value: float
    """Scores below it are unknown."""
    known: int
    """Number of samples."""
    rejected: int
    """Number of samples below the threshold."""
    most_rejected: float
    """Upper confidence bound on the share of the population below the threshold, in [0, 1]."""


def fewest_known(allowed: float = ALLOWED) -> int:
    """Return the minimum number of known samples for a threshold: 59 for 5%."""
    return math.ceil(math.log(_TAIL) / math.log(1 - allowed))


def fit_threshold(scores: Floats, allowed: float = ALLOWED) -> Threshold | None:
    """Fit the largest threshold for which the bound on the share of known samples below it is allowed.

    Args:
        scores: familiarity of known samples `[N]`, not those that the statistics were fitted on.
        allowed: largest share of known samples below the threshold, in (0, 1).

    Returns:
        The threshold, or None with too few samples (see `fewest_known`).
    """
    n, rank = len(scores), 0
    # The order statistic of this rank is above at most the allowed share, except with probability 5%.
    # This is the condition `share_bound(rank, n) <= allowed`, without its bisection.
    while rank < n and _at_most(rank, n, allowed) <= _TAIL:
        rank += 1
    if not rank:
        return None
    value = float(np.sort(scores)[rank - 1])
    rejected = int((scores < value).sum())
    return Threshold(value, n, rejected, share_bound(rank - 1, n))


def share_bound(found: int, n: int) -> float:
    """Return the upper confidence bound (95%, one-sided) on the share of a population.

    Args:
        found: number of samples in the share, of `n`.
        n: number of samples.
    """
    if found >= n:
        return 1.0
    low, high = found / n, 1.0
    for _ in range(60):  # bisection: the probability of at most `found` decreases with the share
        middle = (low + high) / 2
        low, high = (middle, high) if _at_most(found, n, middle) > _TAIL else (low, middle)
    return high


def _at_most(found: int, n: int, share: float) -> float:
    """Return the binomial probability of at most `found` of `n`."""
    if not 0 < share < 1:
        return float(share <= 0)
    k = np.arange(1, found + 1)
    steps = np.log(n - k + 1) - np.log(k) + math.log(share) - math.log1p(-share)
    logs = n * math.log1p(-share) + np.concatenate([[0.0], np.cumsum(steps)])
    return float(np.exp(logs).sum())
