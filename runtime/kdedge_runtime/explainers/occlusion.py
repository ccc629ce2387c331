"""Occlusion: score drop under a sliding square.

Source: Zeiler and Fergus, Visualizing and Understanding Convolutional Networks, ECCV 2014, section 4.2.
"""

import numpy as np

from kdedge_runtime.explainers.estimate import MapEstimate
from kdedge_runtime.explainers.image_grid import grid_edges
from kdedge_runtime.explainers.masked_scorer import Doubles, MaskedScorer

__all__ = ["occlusion"]

_POSITIONS = 14
_WINDOW_POSITIONS = 3


def occlusion(scorer: MaskedScorer) -> MapEstimate:
    """Compute the mean score drop over the squares that cover each position.

    The map has 14 × 14 positions. Squares of 3 × 3 positions are placed everywhere inside the image, 144 in total. An
    axis with fewer values, such as the channels of a series, has a position for each, and they are hidden one by one.
    Squares that tile the image come first and are always evaluated; the others follow in random order. The standard
    error includes the finite population correction and is zero if all squares are evaluated.
    """
    rows, columns = grid_edges(scorer.height, _POSITIONS), grid_edges(scorer.width, _POSITIONS)
    shape = len(rows) - 1, len(columns) - 1
    tall, wide = (_WINDOW_POSITIONS if positions == _POSITIONS else 1 for positions in shape)
    places = [(top, left) for top in range(shape[0] - tall + 1) for left in range(shape[1] - wide + 1)]
    tiling = [(top, left) for top in _tiles(shape[0], tall) for left in _tiles(shape[1], wide)]
    others = sorted(set(places) - set(tiling))
    ordered = tiling + [others[index] for index in scorer.rng.permutation(len(others))]

    whole = scorer.score(np.ones((1, scorer.height, scorer.width), np.float32))[0]
    # Sums over the squares that cover a position: count, drops and squared drops.
    made, drops, squares = np.zeros((3, *shape))
    all_of_them = np.zeros(shape)
    for top, left in places:
        all_of_them[top : top + tall, left : left + wide] += 1
    done = 0
    for size in scorer.batches(len(ordered), len(tiling)):
        batch = ordered[done : done + size]
        done += size
        keep = np.ones((size, scorer.height, scorer.width), np.float32)
        for mask, (top, left) in zip(keep, batch, strict=True):
            mask[rows[top] : rows[top + tall], columns[left] : columns[left + wide]] = 0
        for drop, (top, left) in zip(whole - scorer.score(keep), batch, strict=True):
            positions = np.s_[top : top + tall, left : left + wide]
            made[positions] += 1
            drops[positions] += drop
            squares[positions] += drop**2
    mean = drops / made
    return scorer.estimate(mean, _error(mean, made, squares, all_of_them))


def _tiles(positions: int, window: int) -> list[int]:
    """Return the starts of the fewest windows that cover all positions; the last one may overlap."""
    return sorted({*range(0, positions - window + 1, window), positions - window})


def _error(mean: Doubles, made: Doubles, squares: Doubles, all_of_them: Doubles) -> Doubles:
    several = made > 1
    # Pooled over all positions, because each has few squares. A single square gives no estimate.
    freedom = float((made - 1).sum())
    spread = float((squares - made * mean**2)[several].sum()) / freedom if freedom > 0 else np.inf
    left_out = (all_of_them - made) / np.maximum(all_of_them - 1, 1)
    error = np.zeros_like(mean)
    partly = left_out > 0
    error[partly] = np.sqrt(max(spread, 0.0) / made[partly] * left_out[partly])
    return error
