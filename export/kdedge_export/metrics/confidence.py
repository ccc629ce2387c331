"""How far a figure could be off because it was measured on these images and not on others.

95 % intervals over images, seeded: the same figures give the same interval. What is compared on the same images is
judged in pairs, so that images on which two models do the same add little width.

A bootstrap cannot know of what none of the images shows: of pictures of which 2 in 100 go wrong, 30 show none more
often than not, and its interval has no width. So each end of a mean of bounded scores counts one image more, which
scores as badly as one can (`SHARE`, `DIFFERENCE`, `CORRELATION`), and the weights of all are drawn anew (Gaffke, Three
test statistics for a nonparametric one-sided hypothesis on the mean of a nonnegative variable, Mathematical Methods of
Statistics 14, 2005; Learned-Miller and Thomas, arXiv:1905.06208). Of shares that is Clopper and Pearson's exact
interval; where nothing differs its end is what `unseen_share` says. A percentile has the interval of its order
statistics (David and Nagaraja, Order Statistics, 2003, section 7.1), which has no end where so few images cannot have
one. Scores without bounds have the percentile bootstrap (Efron and Tibshirani, An Introduction to the Bootstrap, 1993,
ch. 13).
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "CORRELATION",
    "DIFFERENCE",
    "LEVEL",
    "SHARE",
    "Interval",
    "fewest_for_percentile",
    "images_needed",
    "interval_of",
    "mean_interval",
    "percentile_interval",
    "rounded_up",
    "unseen_share",
]

LEVEL = 0.95
SHARE = (0.0, 1.0)
"""The least and the most that an image may score which is lost or kept."""
DIFFERENCE = (-1.0, 1.0)
"""Likewise of an answer that one of two models has lost."""
CORRELATION = (-1.0, 1.0)
"""Likewise of two maps: opposite, or the same."""
_TAIL = (1 - LEVEL) / 2
_RESAMPLES, _MOST_RESAMPLES = 2000, 50_000
_SEED = 0
_CHUNK = 2**22
"""Resampled images held at a time."""

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """The ends between which a figure lies with 95 % confidence."""

    low: float
    high: float


def mean_interval(scores: Scores, bounds: tuple[float, float] | None = None, scale: float = 1.0) -> Interval | None:
    """Interval of the mean of scores, times `scale`.

    Args:
        scores: `[N]`; NaN are left out.
        bounds: what a picture unlike all of these may score; None for scores without bounds, whose mean has a
            bootstrap interval, and none for fewer than two images.
        scale: positive.

    Returns:
        None where no score is defined.
    """
    defined = scores[~np.isnan(scores)].astype(np.float64)
    if bounds is None:
        return _bootstrap(lambda index: defined[index].mean(axis=1) * scale, len(defined))
    if not len(defined):
        return None
    values, counts = np.unique(defined, return_counts=True)
    low, high = _bounded_ends(tuple(values.tolist()), tuple(counts.tolist()), bounds)
    return Interval(low * scale, high * scale)


def percentile_interval(scores: Scores, percent: float) -> Interval | None:
    """Interval of a percentile of scores `[N]` over the images; NaN are left out.

    None where there are too few images for one of its ends (see `fewest_for_percentile`).
    """
    ordered = np.sort(scores[~np.isnan(scores)]).astype(np.float64)
    n, share = len(ordered), percent / 100
    low, high = _rank(n, share), n + 1 - _rank(n, 1 - share)
    return Interval(float(ordered[low - 1]), float(ordered[high - 1])) if low >= 1 and high <= n else None


def fewest_for_percentile(percent: float) -> int:
    """The fewest images on which a percentile below the median has an interval: 72 for the 5th.

    On fewer, all may lie above it.
    """
    return math.ceil(math.log(_TAIL) / math.log(1 - percent / 100))


def interval_of(figure: Callable[[NDArray[np.int64]], float], n: int, resamples: int = 500) -> Interval | None:
    """Bootstrap interval of any figure of `n` images, computed from image numbers int64 `[n]`, some of them repeated.

    None for fewer than two images.
    """
    return _bootstrap(lambda index: np.array([figure(row) for row in index]), n, resamples)


def images_needed(n: int, measured: float, end: float, bound: float, worst: float | None = None) -> int | None:
    """About how many images would move an interval's end to the bound, if the figure stayed as it is.

    What images differ in falls with the square root of their number; what none of them shows, with the number.

    Args:
        n: images that were measured on.
        measured: the figure.
        end: the end of its interval that lies beyond the bound.
        bound: what it must keep.
        worst: what a picture unlike all of these may score; None for an interval that does not count one.

    Returns:
        The number, rounded up to two digits; None where the figure lies on the bound, which no number of images shows.
    """
    margin, width = abs(measured - bound), abs(end - measured)
    if not margin > 1e-12 or not math.isfinite(width):
        return None
    unseen = 0.0 if worst is None else -math.log(_TAIL) * abs(worst - measured)
    needed = unseen / margin + max(0.0, n - unseen / width) * (width / margin) ** 2
    return rounded_up(needed)


def rounded_up(images: float) -> int:
    """A number of images, rounded up to two digits."""
    unit = int(10 ** max(0, math.floor(math.log10(max(images, 1))) - 1))
    return math.ceil(images / unit) * unit


def unseen_share(n: int) -> float:
    """The share of pictures with some fault that `n` images without it do not exclude: about `3.7 / n`.

    It is the end of the interval of a share of 0 (Clopper and Pearson, Biometrika 1934).
    """
    return float(1 - _TAIL ** (1 / n))


@lru_cache(maxsize=256)
def _bounded_ends(
    values: tuple[float, ...], counts: tuple[int, ...], bounds: tuple[float, float]
) -> tuple[float, float]:
    """Ends of the mean of different values, each of so many images; classes of a data set ask for the same often."""
    # From each bound, so that values that all lie on it leave an end of exactly that.
    above, below = (np.array(values) - bound for bound in bounds)
    lows, highs = [], []
    draws = max(_RESAMPLES, min(_MOST_RESAMPLES, _CHUNK // len(values)))
    generator = np.random.default_rng(_SEED)
    rows = max(1, _CHUNK // len(values))
    for start in range(0, draws, rows):
        some = min(rows, draws - start)
        size = some, len(values)
        # One image each is the common case, and its weight the cheaper draw of the same distribution.
        weights = generator.standard_exponential(size) if max(counts) == 1 else generator.standard_gamma(counts, size)
        total = weights.sum(axis=1) + generator.standard_exponential(some)
        lows.append(weights @ above / total)
        highs.append(weights @ below / total)
    low, high = np.quantile(np.concatenate(lows), _TAIL), np.quantile(np.concatenate(highs), 1 - _TAIL)
    return bounds[0] + float(low), bounds[1] + float(high)


def _rank(n: int, share: float) -> int:
    """The largest r of which fewer than r of `n` images lie in a `share` of all pictures at most so seldom; 0: none."""
    k = np.arange(1, n + 1)
    steps = np.log(n - k + 1) - np.log(k) + math.log(share / (1 - share))
    chances = np.exp(n * math.log(1 - share) + np.concatenate([[0.0], np.cumsum(steps)]))
    return int((np.cumsum(chances) <= _TAIL).sum())


def _bootstrap(figures: Callable[[NDArray[np.int64]], Scores], n: int, resamples: int = _RESAMPLES) -> Interval | None:
    if n < 2:
        return None
    values = np.concatenate([figures(index) for index in _draws(n, resamples)])
    low, high = np.quantile(values, [_TAIL, 1 - _TAIL])
    return Interval(float(low), float(high))


def _draws(n: int, resamples: int) -> Iterator[NDArray[np.int64]]:
    """Image numbers `[some, n]`, drawn with replacement, until there are `resamples` rows."""
    generator = np.random.default_rng(_SEED)
    rows = max(1, _CHUNK // n)
    for start in range(0, resamples, rows):
        yield generator.integers(0, n, (min(rows, resamples - start), n))
