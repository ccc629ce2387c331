"""RISE: correlation of the score with random soft masks.

Source: Petsiuk, Das and Saenko, RISE: Randomized Input Sampling for Explanation of Black-box Models, BMVC 2018.
"""

import numpy as np

from kdedge_runtime.explainers.estimate import MapEstimate
from kdedge_runtime.explainers.image_grid import enlarge, grid_edges, grid_means
from kdedge_runtime.explainers.masked_scorer import Doubles, MaskedScorer
from kdedge_runtime.util.arrays import Floats

__all__ = ["covariance", "draw_masks", "rise"]

_MASKS = 2000
_MIN_MASKS = 64
_GRID = 7
_VISIBLE = 0.5
_POSITIONS = 28


def rise(scorer: MaskedScorer) -> MapEstimate:
    """Compute the covariance of the score and each position's visibility, divided by p (1 − p).

    The published map `E[f M] / p` equals `E[f]`, not zero, at positions that do not affect the score. Subtracting `E[f]
    E[M] / p` and dividing by `1 − p` makes it zero there and keeps the ranking. Masks are those of the paper: 7 × 7
    cells visible with p = 1/2, bilinear, shifted; 2,000 without a budget.
    """
    rows, columns = grid_edges(scorer.height, _POSITIONS), grid_edges(scorer.width, _POSITIONS)
    sums = np.zeros((2, 3, len(rows) - 1, len(columns) - 1))
    powers = np.zeros(3)
    for size in scorer.batches(_MASKS, _MIN_MASKS, endless=True):
        keep = draw_masks(scorer.rng, size, scorer.height, scorer.width)
        scores = np.vander(scorer.score(keep), 3, increasing=True).T
        positions = grid_means(keep, rows, columns).astype(np.float64)
        sums += np.stack([np.tensordot(scores, positions**power, axes=1) for power in (1, 2)])
        powers += scores.sum(axis=1)
    slope, error = covariance(sums, powers)
    variance = _VISIBLE * (1 - _VISIBLE)
    return scorer.estimate(slope / variance, error / variance)


def draw_masks(rng: np.random.Generator, count: int, height: int, width: int) -> Floats:
    """Draw soft masks, float32 `[count, height, width]` in [0, 1]: upsampled grids of random bits at random shifts."""
    bits = (rng.random((count, _GRID, _GRID)) < _VISIBLE).astype(np.float32)
    tall, wide = -(-height // _GRID), -(-width // _GRID)
    large = enlarge(bits, (_GRID + 1) * tall, (_GRID + 1) * wide)
    tops, lefts = rng.integers(0, tall, count), rng.integers(0, wide, count)
    return np.stack(
        [mask[top : top + height, left : left + width] for mask, top, left in zip(large, tops, lefts, strict=True)]
    )


def covariance(sums: Doubles, powers: Doubles) -> tuple[Doubles, Doubles]:
    """Compute the covariance of scores `f` and visibilities `M` and its standard error from sums over the samples.

    Args:
        sums: `[2, 3, …]`, `sums[j - 1, i]` is the sum of `f^i M^j`.
        powers: `[3]`, sums of `f^i`.
    """
    count = powers[0]
    score, visible = powers[1] / count, sums[0, 0] / count
    covariance = sums[0, 1] / count - score * visible
    # Sum of ((f − f̄)(M − M̄))², from c_i = Σ f^i (M − M̄)².
    around = [sums[1, i] - 2 * visible * sums[0, i] + visible**2 * powers[i] for i in range(3)]
    products = around[2] - 2 * score * around[1] + score**2 * around[0]
    variance = np.maximum(products / count - covariance**2, 0)
    return covariance, np.sqrt(variance / count)
