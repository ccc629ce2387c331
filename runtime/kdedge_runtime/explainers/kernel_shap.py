"""KernelSHAP: Shapley values of segments.

Source: Lundberg and Lee, A Unified Approach to Interpreting Model Predictions, NeurIPS 2017; paired coalitions as in
Covert and Lee, Improving KernelSHAP, AISTATS 2021.
"""

import math

import numpy as np

from kdedge_runtime.explainers.estimate import MapEstimate
from kdedge_runtime.explainers.masked_scorer import Doubles, MaskedScorer, Truths
from kdedge_runtime.util.arrays import Integers

__all__ = ["kernel_shap", "shapley_values"]

_SAMPLES = 1000
_MAX_EXACT = 10
"""Maximum number of segments for exact values, from all 2^segments coalitions."""


def kernel_shap(scorer: MaskedScorer, segments: Integers) -> MapEstimate:
    """Compute Shapley values of segments. They sum to the score of the image minus that of the fully hidden image.

    Values are exact for up to 10 segments, unless the budget ends earlier. Otherwise they are estimated from coalitions
    drawn with the Shapley kernel, 1,000 without a budget.

    Args:
        scorer: probe of the image.
        segments: int64 `[H, W]`, from `superpixels`.

    Returns:
        A map `[H, W]`, constant within each segment.
    """
    count = int(segments.max()) + 1
    nothing, everything = scorer.score(np.array([0, 1], np.float32)[:, None, None])
    if count == 1:
        return scorer.estimate(np.full(segments.shape, everything - nothing), np.zeros(segments.shape))
    every = _all_pairs(scorer.rng, count) if count <= _MAX_EXACT else None
    total = _SAMPLES if every is None else 2 * len(every)
    shown: list[Truths] = []
    scores: list[Doubles] = []
    done = 0
    for size in scorer.batches(total, 2 * count, endless=every is None):
        pairs = _draw_pairs(scorer.rng, count, size // 2) if every is None else every[done // 2 : (done + size) // 2]
        done += size
        # Pairs are adjacent: a coalition, then its complement.
        shown.append(np.stack([pairs, ~pairs], axis=1).reshape(-1, count))
        scores.append(scorer.score(shown[-1][:, segments].astype(np.float32)))
    coalitions = np.concatenate(shown)
    # Coalitions drawn with the kernel have equal weights; uniformly drawn ones get the kernel weight.
    weights = np.ones(done) if every is None else _kernel(coalitions)
    values, error = shapley_values(coalitions, weights, np.concatenate(scores), nothing, everything)
    if every is not None:  # finite population correction
        error = error * math.sqrt(1 - done / total) if done < total else np.zeros(count)
    return scorer.estimate(values[segments], error[segments])


def shapley_values(
    coalitions: Truths, weights: Doubles, scores: Doubles, nothing: float, everything: float
) -> tuple[Doubles, Doubles]:
    """Fit scores to coalitions by least squares, with values constrained to sum to `everything − nothing`.

    Args:
        coalitions: bool `[n, segments]`, each coalition followed by its complement.
        weights: sample weights `[n]`.
        scores: scores `[n]`.
        nothing: score with all segments hidden.
        everything: score with no segment hidden.

    Returns:
        Values and their standard errors, both `[segments]`. The errors come from the residuals of the pairs (jackknife
        over pairs).
    """
    present = coalitions.astype(np.float64)
    segments = present.shape[1]
    weighted = present * weights[:, None]
    inverse = np.linalg.pinv(weighted.T @ present, hermitian=True)
    gains = weighted.T @ (scores - nothing)
    ones = inverse.sum(axis=1)
    values = inverse @ gains - ones * ((ones @ gains - (everything - nothing)) / ones.sum())
    if len(present) // 2 < segments:
        return values, np.full(segments, np.inf)
    projection = inverse - np.outer(ones, ones) / ones.sum()
    residuals = weighted * (scores - nothing - present @ values)[:, None]
    # The influence of a pair depends on the difference of its residuals, with twice the leverage of one sample.
    leverage = 2 * ((weighted @ projection) * present).sum(axis=1)[0::2]
    influence = (residuals[0::2] + residuals[1::2]) @ projection / np.maximum(1 - leverage, 1e-9)[:, None]
    return values, np.sqrt((influence**2).sum(axis=0))


def _all_pairs(rng: np.random.Generator, segments: int) -> Truths:
    """Return one coalition per pair, shuffled, without full and empty ones: bool `[2^(segments − 1) − 1, segments]`."""
    numbers = rng.permutation(2 ** (segments - 1) - 1)
    bits: Truths = (numbers[:, None] >> np.arange(segments) & 1).astype(bool)
    bits[:, -1] = True
    return bits


def _draw_pairs(rng: np.random.Generator, segments: int, count: int) -> Truths:
    """Draw coalitions with the probabilities of the Shapley kernel: bool `[count, segments]`."""
    sizes = np.arange(1, segments)
    chance = 1 / (sizes * (segments - sizes))
    drawn = rng.choice(sizes, size=count, p=chance / chance.sum())
    rank = rng.random((count, segments)).argsort(axis=1).argsort(axis=1)
    chosen: Truths = rank < drawn[:, None]
    return chosen


def _kernel(coalitions: Truths) -> Doubles:
    """Return the Shapley kernel of each coalition: `(m − 1) / (C(m, k) k (m − k))` for `k` of `m` segments present."""
    segments = coalitions.shape[1]
    by_size = [0.0] + [(segments - 1) / (math.comb(segments, k) * k * (segments - k)) for k in range(1, segments)]
    weights: Doubles = np.array(by_size)[coalitions.sum(axis=1)]
    return weights
