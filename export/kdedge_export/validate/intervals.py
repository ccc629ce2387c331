"""How far a figure could be off because it was measured on these images and not on others.

95 % intervals by the percentile bootstrap over images (Efron and Tibshirani, An Introduction to the Bootstrap, 1993,
ch. 13), seeded: the same figures give the same interval. What is compared on the same images is resampled in pairs, so
that images on which two models do the same add no width, and a difference that no image shows has a width of 0.

With few images the bootstrap is too narrow: it cannot know of what none of them shows (see `unseen_share`).
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["LEVEL", "Interval", "images_needed", "interval_of", "mean_interval", "percentile_interval", "unseen_share"]

LEVEL = 0.95
_RESAMPLES = 2000
_SEED = 0
_CHUNK = 2**22
"""Resampled images held at a time."""

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """The ends between which a figure lies with 95 % confidence."""

    low: float
    high: float


def mean_interval(scores: Scores, scale: float = 1.0) -> Interval | None:
    """Interval of the mean of scores `[N]`, times `scale`; NaN are left out. None for fewer than two images."""
    defined = scores[~np.isnan(scores)].astype(np.float64)
    return _interval(lambda index: defined[index].mean(axis=1) * scale, len(defined))


def percentile_interval(scores: Scores, percent: float) -> Interval | None:
    """Interval of a percentile of scores `[N]` over the images; NaN are left out. None for fewer than two images."""
    defined = scores[~np.isnan(scores)].astype(np.float64)
    return _interval(lambda index: np.percentile(defined[index], percent, axis=1), len(defined))


def interval_of(figure: Callable[[NDArray[np.int64]], float], n: int, resamples: int = 500) -> Interval | None:
    """Interval of any figure of `n` images, which is computed from image numbers int64 `[n]`, some of them repeated."""
    return _interval(lambda index: np.array([figure(row) for row in index]), n, resamples)


def images_needed(n: int, measured: float, end: float, bound: float) -> int | None:
    """About how many images would move an interval's end to the bound, if the figure stayed as it is.

    The width of an interval falls with the square root of the number of images.

    Args:
        n: images that were measured on.
        measured: the figure.
        end: the end of its interval that lies beyond the bound.
        bound: what it must keep.

    Returns:
        The number, rounded up to two digits; None where the figure lies on the bound, which no number of images shows.
    """
    margin = abs(measured - bound)
    if not margin > 1e-12 or not math.isfinite(end):
        return None
    needed = n * (abs(end - measured) / margin) ** 2
    unit = int(10 ** max(0, math.floor(math.log10(needed)) - 1))
    return math.ceil(needed / unit) * unit


def unseen_share(n: int) -> float:
    """The share of pictures with some fault that `n` images without it do not exclude, at 95 % confidence.

    The rule of three (Hanley and Lippman-Hand, JAMA 1983): `3 / n`, at most 1.
    """
    return min(1.0, 3 / n)


def _interval(figures: Callable[[NDArray[np.int64]], Scores], n: int, resamples: int = _RESAMPLES) -> Interval | None:
    if n < 2:
        return None
    values = np.concatenate([figures(index) for index in _draws(n, resamples)])
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(values, [tail, 100 - tail])
    return Interval(float(low), float(high))


def _draws(n: int, resamples: int) -> Iterator[NDArray[np.int64]]:
    """Image numbers `[some, n]`, drawn with replacement, until there are `resamples` rows."""
    generator = np.random.default_rng(_SEED)
    rows = max(1, _CHUNK // n)
    for start in range(0, resamples, rows):
        yield generator.integers(0, n, (min(rows, resamples - start), n))
