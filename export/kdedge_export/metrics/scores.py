"""Scores of single samples, and their mean and percentiles."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["Scores", "mean", "percentile"]

Scores = NDArray[np.float64]
"""One score per sample, float64 `[N]`; NaN where it is undefined."""


def mean(scores: Scores) -> float:
    """Compute the mean over samples with a defined score; NaN if there are none."""
    defined = scores[~np.isnan(scores)]
    return float(defined.mean()) if defined.size else float("nan")


def percentile(scores: Scores, percent: float) -> float:
    """Compute a percentile over samples with a defined score; NaN if there are none."""
    defined = scores[~np.isnan(scores)]
    return float(np.percentile(defined, percent)) if defined.size else float("nan")
