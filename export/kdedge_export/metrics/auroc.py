"""Area under the receiver operating characteristic: separation of two groups of samples by a score.

It is the probability that a positive sample scores above a negative one, where ties count one half (Hanley and McNeil,
Radiology 143, 1982).
"""

import numpy as np
from numpy.typing import NDArray

from kdedge_export.metrics.confidence import Interval, central_interval
from kdedge_export.metrics.scores import Scores

__all__ = ["auroc", "auroc_interval"]

_RESAMPLES = 500


def auroc(positive: Scores, negative: Scores) -> float:
    """Return the area in [0, 1]; NaN without positive or without negative samples.

    Args:
        positive: scores of the samples `[N]` that should have the larger ones, such as those of known classes.
        negative: scores of the others `[M]`.
    """
    n, m = len(positive), len(negative)
    if not n or not m:
        return float("nan")
    ranks = _ranks(np.concatenate([positive, negative]).astype(np.float64))[:n]
    return float((ranks.sum() - n * (n + 1) / 2) / (n * m))


def auroc_interval(positive: Scores, negative: Scores) -> Interval | None:
    """Compute the 95% interval of the area by a bootstrap within each group.

    It makes no allowance for unseen failures. Returns None with fewer than two samples in a group.
    """
    if min(len(positive), len(negative)) < 2:
        return None
    rng = np.random.default_rng(0)
    areas = [auroc(rng.choice(positive, len(positive)), rng.choice(negative, len(negative))) for _ in range(_RESAMPLES)]
    return central_interval(np.array(areas))


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ranks from 1; equal values have their mean rank."""
    _, positions, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks: NDArray[np.float64] = ((ends - counts + 1 + ends) / 2)[positions]
    return ranks
