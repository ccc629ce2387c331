"""LIME: which superpixels does a linear model of the neighbourhood lean on?

Source: Ribeiro, Singh and Guestrin, "Why Should I Trust You?", KDD 2016; kernel and ridge are those of the authors'
package `lime`.
"""

import numpy as np

from kdedge_runtime.explainers.estimate import Estimate
from kdedge_runtime.explainers.masked_scorer import Doubles, Probe, Truths
from kdedge_runtime.util.arrays import Integers

__all__ = ["lime", "local_model"]

_SAMPLES = 1000
_KERNEL_WIDTH = 0.25
_RIDGE = 1.0


def lime(probe: Probe, parts: Integers) -> Estimate:
    """The weight of each part in a linear model of the score, fitted where the picture is nearly whole.

    Args:
        probe: the picture.
        parts: int64 `[H, W]`, from `superpixels`.

    Returns:
        A map `[H, W]`, the same value all over a part. Without a budget from 1,000 samples.
    """
    count = int(parts.max()) + 1
    shown = [np.ones((1, count), bool)]
    scores = [probe.ask(shown[0][:, parts].astype(np.float32))]
    for size in probe.batches(_SAMPLES - 1, 2 * count, endless=True):
        shown.append(probe.rng.integers(0, 2, (size, count)).astype(bool))
        scores.append(probe.ask(shown[-1][:, parts].astype(np.float32)))
    weights, error = local_model(np.concatenate(shown), np.concatenate(scores))
    return probe.estimate(weights[parts], error[parts])


def local_model(shown: Truths, scores: Doubles) -> tuple[Doubles, Doubles]:
    """Ridge regression of scores on what is shown, weighted by nearness to the whole picture.

    The weight of a sample is `sqrt(exp(−d² / 0.25²))`, `d` its cosine distance to all parts shown; the penalty is 1, on
    all but the intercept.

    Args:
        shown: bool `[n, parts]`.
        scores: `[n]`.

    Returns:
        The weights of the parts, and their standard errors from the residuals (HC3 of MacKinnon and White, Journal of
        Econometrics 1985), both `[parts]`.
    """
    present = shown.astype(np.float64)
    samples, parts = present.shape
    # The cosine of a row of zeros and ones with all ones; a row of zeros is as far as can be.
    distance = 1 - np.sqrt(present.mean(axis=1))
    nearness = np.sqrt(np.exp(-(distance**2) / _KERNEL_WIDTH**2))
    share = nearness / nearness.sum()
    centred, target = present - share @ present, scores - share @ scores
    inverse = np.linalg.inv((centred * nearness[:, None]).T @ centred + _RIDGE * np.eye(parts))
    weights = inverse @ (centred.T @ (nearness * target))
    if samples <= parts + 1:
        return weights, np.full(parts, np.inf)
    leverage = share + nearness * ((centred @ inverse) * centred).sum(axis=1)
    residuals = nearness * (target - centred @ weights) / (1 - leverage)
    return weights, np.sqrt((inverse @ (centred.T * residuals**2) @ centred @ inverse).diagonal())
