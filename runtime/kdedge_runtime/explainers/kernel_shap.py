"""KernelSHAP: Shapley values of superpixels.

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
"""Maximum number of parts for exact values, from all 2^parts coalitions."""


def kernel_shap(scorer: MaskedScorer, parts: Integers) -> MapEstimate:
    """Compute Shapley values of superpixels. They sum to the score of the image minus that of the fully hidden image.

    Values are exact for up to 10 parts, unless the budget ends earlier. Otherwise they are estimated from coalitions
    drawn with the Shapley kernel, 1,000 without a budget.

    Args:
        scorer: probe of the image.
        parts: int64 `[H, W]`, from `superpixels`.

    Returns:
        A map `[H, W]`, constant within each part.
    """
    count = int(parts.max()) + 1
    nothing, everything = scorer.score(np.array([0, 1], np.float32)[:, None, None])
    if count == 1:
        return scorer.estimate(np.full(parts.shape, everything - nothing), np.zeros(parts.shape))
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
        scores.append(scorer.score(shown[-1][:, parts].astype(np.float32)))
    coalitions = np.concatenate(shown)
    # Coalitions drawn with the kernel have equal weights; uniformly drawn ones get the kernel weight.
    weights = np.ones(done) if every is None else _kernel(coalitions)
    values, error = shapley_values(coalitions, weights, np.concatenate(scores), nothing, everything)
    if every is not None:  # finite population correction
        error = error * math.sqrt(1 - done / total) if done < total else np.zeros(count)
    return scorer.estimate(values[parts], error[parts])


def shapley_values(
    coalitions: Truths, weights: Doubles, scores: Doubles, nothing: float, everything: float
) -> tuple[Doubles, Doubles]:
    """Fit scores to coalitions by least squares, with values constrained to sum to `everything − nothing`.

    Args:
        coalitions: bool `[n, parts]`, each coalition followed by its complement.
        weights: sample weights `[n]`.
        scores: scores `[n]`.
        nothing: score with all parts hidden.
        everything: score with no part hidden.

    Returns:
        Values and their standard errors, both `[parts]`. The errors come from the residuals of the pairs (jackknife
        over pairs).
    """
    present = coalitions.astype(np.float64)
    parts = present.shape[1]
    weighted = present * weights[:, None]
    inverse = np.linalg.pinv(weighted.T @ present, hermitian=True)
    gains = weighted.T @ (scores - nothing)
    ones = inverse.sum(axis=1)
    values = inverse @ gains - ones * ((ones @ gains - (everything - nothing)) / ones.sum())
    if len(present) // 2 < parts:
        return values, np.full(parts, np.inf)
    projection = inverse - np.outer(ones, ones) / ones.sum()
    residuals = weighted * (scores - nothing - present @ values)[:, None]
    # The influence of a pair depends on the difference of its residuals, with twice the leverage of one sample.
    leverage = 2 * ((weighted @ projection) * present).sum(axis=1)[0::2]
    influence = (residuals[0::2] + residuals[1::2]) @ projection / np.maximum(1 - leverage, 1e-9)[:, None]
    return values, np.sqrt((influence**2).sum(axis=0))


def _all_pairs(rng: np.random.Generator, parts: int) -> Truths:
    """Return one coalition per pair, shuffled, without full and empty ones: bool `[2^(parts − 1) − 1, parts]`."""
    numbers = rng.permutation(2 ** (parts - 1) - 1)
    bits: Truths = (numbers[:, None] >> np.arange(parts) & 1).astype(bool)
    bits[:, -1] = True
    return bits


def _draw_pairs(rng: np.random.Generator, parts: int, count: int) -> Truths:
    """Draw coalitions with the probabilities of the Shapley kernel: bool `[count, parts]`."""
    sizes = np.arange(1, parts)
    chance = 1 / (sizes * (parts - sizes))
    drawn = rng.choice(sizes, size=count, p=chance / chance.sum())
    rank = rng.random((count, parts)).argsort(axis=1).argsort(axis=1)
    chosen: Truths = rank < drawn[:, None]
    return chosen


def _kernel(coalitions: Truths) -> Doubles:
    """Return the Shapley kernel of each coalition: `(m − 1) / (C(m, k) k (m − k))` for `k` of `m` parts present."""
    parts = coalitions.shape[1]
    by_size = [0.0] + [(parts - 1) / (math.comb(parts, k) * k * (parts - k)) for k in range(1, parts)]
    weights: Doubles = np.array(by_size)[coalitions.sum(axis=1)]
    return weights
