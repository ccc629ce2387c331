"""LIME: weights of superpixels in a local linear model.

Source: Ribeiro, Singh and Guestrin, "Why Should I Trust You?", KDD 2016. Kernel and ridge penalty are those of the
authors' package `lime`.
"""

import numpy as np

from kdedge_runtime.explainers.estimate import MapEstimate
from kdedge_runtime.explainers.masked_scorer import Doubles, MaskedScorer, Truths
from kdedge_runtime.util.arrays import Integers

__all__ = ["lime", "local_model"]

_SAMPLES = 1000
_KERNEL_WIDTH = 0.25
_RIDGE = 1.0


def lime(scorer: MaskedScorer, segments: Integers) -> MapEstimate:
    """Compute the weight of each superpixel in a linear model of the score near the full image.

    Args:
        scorer: probe of the image.
        segments: int64 `[H, W]`, from `superpixels`.

    Returns:
        A map `[H, W]`, constant within each segment, from 1,000 samples without a budget.
    """
    count = int(segments.max()) + 1
    shown = [np.ones((1, count), bool)]
    scores = [scorer.score(shown[0][:, segments].astype(np.float32))]
    for size in scorer.batches(_SAMPLES - 1, 2 * count, endless=True):
        shown.append(scorer.rng.integers(0, 2, (size, count)).astype(bool))
        scores.append(scorer.score(shown[-1][:, segments].astype(np.float32)))
    weights, error = local_model(np.concatenate(shown), np.concatenate(scores))
    return scorer.estimate(weights[segments], error[segments])


def local_model(shown: Truths, scores: Doubles) -> tuple[Doubles, Doubles]:
    """Fit scores by ridge regression, weighted by proximity to the full image.

    The weight of a sample is `sqrt(exp(−d² / 0.25²))`, with `d` its cosine distance to the full image. The penalty is 1
    on all coefficients except the intercept.

    Args:
        shown: bool `[n, segments]`, True for visible segments.
        scores: scores `[n]`.

    Returns:
        Weights of the segments and their standard errors from the residuals (HC3, MacKinnon and White, Journal of
        Econometrics 1985), both `[segments]`.
    """
    present = shown.astype(np.float64)
    samples, segments = present.shape
    # Cosine of a binary row with all ones. A row of zeros has the maximum distance.
    distance = 1 - np.sqrt(present.mean(axis=1))
    nearness = np.sqrt(np.exp(-(distance**2) / _KERNEL_WIDTH**2))
    share = nearness / nearness.sum()
    centered, target = present - share @ present, scores - share @ scores
    inverse = np.linalg.inv((centered * nearness[:, None]).T @ centered + _RIDGE * np.eye(segments))
    weights = inverse @ (centered.T @ (nearness * target))
    if samples <= segments + 1:
        return weights, np.full(segments, np.inf)
    leverage = share + nearness * ((centered @ inverse) * centered).sum(axis=1)
    residuals = nearness * (target - centered @ weights) / (1 - leverage)
    return weights, np.sqrt((inverse @ (centered.T * residuals**2) @ centered @ inverse).diagonal())
