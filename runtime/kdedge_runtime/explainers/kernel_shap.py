"""KernelSHAP: the superpixels share the score by Shapley's rule.

Source: Lundberg and Lee, A Unified Approach to Interpreting Model Predictions, NeurIPS 2017; coalitions in pairs with
their complements as in Covert and Lee, Improving KernelSHAP, AISTATS 2021.
"""

import math

import numpy as np

from kdedge_runtime.explainers.estimate import Estimate
from kdedge_runtime.explainers.masked_scorer import Doubles, Probe, Truths
from kdedge_runtime.util.arrays import Integers

__all__ = ["kernel_shap", "shapley_values"]

_SAMPLES = 1000
_MOST_EXACT = 10
"""Parts of which all 2^parts coalitions are asked."""


def kernel_shap(probe: Probe, parts: Integers) -> Estimate:
    """Shapley values of the parts: they sum to the score of the whole picture minus that of the hidden one.

    Up to 10 parts all coalitions are asked and the values are exact, unless the budget ends before; with more they
    are estimated from coalitions drawn by the Shapley kernel, without a budget 1,000.

    Args:
        probe: the picture.
        parts: int64 `[H, W]`, from `superpixels`.

    Returns:
        A map `[H, W]`, the same value all over a part.
    """
    count = int(parts.max()) + 1
    nothing, everything = probe.ask(np.array([0, 1], np.float32)[:, None, None])
    if count == 1:
        return probe.estimate(np.full(parts.shape, everything - nothing), np.zeros(parts.shape))
    every = _all_pairs(probe.rng, count) if count <= _MOST_EXACT else None
    total = _SAMPLES if every is None else 2 * len(every)
    shown: list[Truths] = []
    scores: list[Doubles] = []
    done = 0
    for size in probe.batches(total, 2 * count, endless=every is None):
        pairs = _draw_pairs(probe.rng, count, size // 2) if every is None else every[done // 2 : (done + size) // 2]
        done += size
        # A pair stands together: a coalition, then its complement.
        shown.append(np.stack([pairs, ~pairs], axis=1).reshape(-1, count))
        scores.append(probe.ask(shown[-1][:, parts].astype(np.float32)))
    coalitions = np.concatenate(shown)
    # Drawn by the kernel they all weigh the same; drawn evenly they weigh what the kernel says.
    weights = np.ones(done) if every is None else _kernel(coalitions)
    values, error = shapley_values(coalitions, weights, np.concatenate(scores), nothing, everything)
    if every is not None:  # a sample without replacement
        error = error * math.sqrt(1 - done / total) if done < total else np.zeros(count)
    return probe.estimate(values[parts], error[parts])


def shapley_values(
    coalitions: Truths, weights: Doubles, scores: Doubles, nothing: float, everything: float
) -> tuple[Doubles, Doubles]:
    """Least squares of scores on coalitions, where the values must sum to `everything − nothing`.

    Args:
        coalitions: bool `[n, parts]`, pairs of a coalition and its complement after each other.
        weights: `[n]`.
        scores: `[n]`.
        nothing: the score with all parts hidden.
        everything: the score with none hidden.

    Returns:
        The values and their standard errors from the residuals of the pairs (a jackknife over pairs), both `[parts]`.
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
    # A pair pulls at the values with the difference of its two residuals, and with twice the leverage of one.
    leverage = 2 * ((weighted @ projection) * present).sum(axis=1)[0::2]
    influence = (residuals[0::2] + residuals[1::2]) @ projection / np.maximum(1 - leverage, 1e-9)[:, None]
    return values, np.sqrt((influence**2).sum(axis=0))


def _all_pairs(rng: np.random.Generator, parts: int) -> Truths:
    """One of each pair of complements, shuffled, without all and nothing: bool `[2^(parts − 1) − 1, parts]`."""
    numbers = rng.permutation(2 ** (parts - 1) - 1)
    bits: Truths = (numbers[:, None] >> np.arange(parts) & 1).astype(bool)
    bits[:, -1] = True
    return bits


def _draw_pairs(rng: np.random.Generator, parts: int, count: int) -> Truths:
    """Coalitions drawn with the probabilities of the Shapley kernel: bool `[count, parts]`."""
    sizes = np.arange(1, parts)
    chance = 1 / (sizes * (parts - sizes))
    drawn = rng.choice(sizes, size=count, p=chance / chance.sum())
    rank = rng.random((count, parts)).argsort(axis=1).argsort(axis=1)
    chosen: Truths = rank < drawn[:, None]
    return chosen


def _kernel(coalitions: Truths) -> Doubles:
    """The Shapley kernel of each coalition: `(m − 1) / (C(m, k) k (m − k))` of `m` parts, `k` of them present."""
    parts = coalitions.shape[1]
    by_size = [0.0] + [(parts - 1) / (math.comb(parts, k) * k * (parts - k)) for k in range(1, parts)]
    weights: Doubles = np.array(by_size)[coalitions.sum(axis=1)]
    return weights
