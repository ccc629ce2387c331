"""Area under the receiver operating characteristic: separation of known from unfamiliar samples by a score.

It is the probability that a known sample scores above an unfamiliar one, where ties count one half (Hanley and McNeil,
Radiology 143, 1982).
"""

import numpy as np
from numpy.typing import NDArray

from kdedge_export.metrics.scores import Scores

__all__ = ["auroc"]


def auroc(known: Scores, unfamiliar: Scores) -> float:
    """Return the area in [0, 1]; NaN without known or without unfamiliar samples.

    Args:
        known: scores of known samples `[N]`, larger for more familiar ones.
        unfamiliar: scores of unfamiliar samples `[M]`.
    """
    n, m = len(known), len(unfamiliar)
    if not n or not m:
        return float("nan")
    ranks = _ranks(np.concatenate([known, unfamiliar]).astype(np.float64))[:n]
    return float((ranks.sum() - n * (n + 1) / 2) / (n * m))


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ranks from 1; equal values have their mean rank."""
    _, positions, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks: NDArray[np.float64] = ((ends - counts + 1 + ends) / 2)[positions]
    return ranks
