"""Confidence intervals for values measured on samples of a population.

All are 95% intervals over samples, seeded for reproducibility. Comparisons on the same samples use paired intervals,
so that samples on which two models agree add little width.

A bootstrap cannot account for failures that occur in none of the samples. If 2 in 100 samples fail, 30 samples often
contain no failure, and the bootstrap interval then has zero width. Means of bounded scores therefore count one
additional sample with the worst possible score (`SHARE`, `DIFFERENCE`, `CORRELATION`), with all weights resampled
(Gaffke, Three test statistics for a nonparametric one-sided hypothesis on the mean of a nonnegative variable,
Mathematical Methods of Statistics 14, 2005; Learned-Miller and Thomas, arXiv:1905.06208). For proportions this equals
the exact interval of Clopper and Pearson; if no sample fails, its end is `unseen_share`. Percentiles use the interval
of their order statistics (David and Nagaraja, Order Statistics, 2003, section 7.1), which does not exist for too few
samples. Unbounded scores use the percentile bootstrap (Efron and Tibshirani, An Introduction to the Bootstrap, 1993,
ch. 13).
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from kdedge_export.metrics.scores import Scores

__all__ = [
    "CORRELATION",
    "DIFFERENCE",
    "LEVEL",
    "SHARE",
    "Interval",
    "central_interval",
    "fewest_for_percentile",
    "samples_needed",
    "interval_of",
    "mean_interval",
    "percentile_interval",
    "rounded_up",
    "unseen_share",
]

LEVEL = 0.95
SHARE = (0.0, 1.0)
"""Lowest and highest score of a sample for a proportion."""
DIFFERENCE = (-1.0, 1.0)
"""Lowest and highest difference of two correctness scores of a sample."""
CORRELATION = (-1.0, 1.0)
"""Lowest and highest correlation of two maps."""
_TAIL = (1 - LEVEL) / 2
_RESAMPLES, _MAX_RESAMPLES = 2000, 50_000
_SEED = 0
_CHUNK = 2**22
"""Maximum number of resampled samples held in memory at once."""


@dataclass(frozen=True)
class Interval:
    """95% confidence interval."""

    low: float
    high: float


def mean_interval(scores: Scores, bounds: tuple[float, float] | None = None, scale: float = 1.0) -> Interval | None:
    """Compute the interval of the mean of scores, times `scale`.

    Args:
        scores: `[N]`; NaN values are ignored.
        bounds: lowest and highest possible score; None for unbounded scores, which use a bootstrap and need at least
            two samples.
        scale: positive factor.

    Returns:
        The interval, or None if no score is defined.
    """
    defined = scores[~np.isnan(scores)].astype(np.float64)
    if bounds is None:
        return interval_of(lambda index: defined[index].mean(axis=1) * scale, len(defined), _RESAMPLES)
    if not len(defined):
        return None
    values, counts = np.unique(defined, return_counts=True)
    low, high = _bounded_ends(tuple(values.tolist()), tuple(counts.tolist()), bounds)
    return Interval(low * scale, high * scale)


def percentile_interval(scores: Scores, percent: float) -> Interval | None:
    """Compute the interval of a percentile of scores `[N]` over samples, ignoring NaN.

    Returns None with too few samples for either end (see `fewest_for_percentile`).
    """
    ordered = np.sort(scores[~np.isnan(scores)]).astype(np.float64)
    n, share = len(ordered), percent / 100
    low, high = _rank(n, share), n + 1 - _rank(n, 1 - share)
    return Interval(float(ordered[low - 1]), float(ordered[high - 1])) if low >= 1 and high <= n else None


def fewest_for_percentile(percent: float) -> int:
    """Return the minimum number of samples for an interval of a percentile below the median: 72 for the 5th.

    With fewer samples, all may lie above the percentile.
    """
    return math.ceil(math.log(_TAIL) / math.log(1 - percent / 100))


def interval_of(figures: Callable[[NDArray[np.int64]], Scores], n: int, resamples: int = 500) -> Interval | None:
    """Compute a bootstrap interval of any statistic of `n` samples; None for fewer than two samples.

    Args:
        figures: statistic `[R]` of rows of sample indices int64 `[R, n]`, which are drawn with replacement.
        n: number of samples.
        resamples: number of rows in total.
    """
    if n < 2:
        return None
    return central_interval(np.concatenate([figures(index) for index in _draws(n, resamples)]))


def central_interval(values: Scores) -> Interval:
    """Return the central 95% of values `[R]` of resamples."""
    low, high = np.quantile(values, [_TAIL, 1 - _TAIL])
    return Interval(float(low), float(high))


def samples_needed(n: int, measured: float, end: float, bound: float, worst: float | None = None) -> int | None:
    """Estimate the number of samples that would move an interval's end to the bound, at the same estimate.

    The sampling error falls with the square root of the number of samples. The allowance for unseen samples falls
    linearly.

    Args:
        n: number of samples measured.
        measured: the estimate.
        end: the end of its interval that violates the bound.
        bound: the bound.
        worst: worst score of an unseen sample; None if the interval assumes none.

    Returns:
        The number, rounded up to two digits; None if the estimate equals the bound, which no number of samples settles.
    """
    margin, width = abs(measured - bound), abs(end - measured)
    if not margin > 1e-12 or not math.isfinite(width):
        return None
    unseen = 0.0 if worst is None else -math.log(_TAIL) * abs(worst - measured)
    needed = unseen / margin + max(0.0, n - unseen / width) * (width / margin) ** 2
    return rounded_up(needed)


def rounded_up(samples: float) -> int:
    """Round a number of samples up to two significant digits."""
    unit = int(10 ** max(0, math.floor(math.log10(max(samples, 1))) - 1))
    return math.ceil(samples / unit) * unit


def unseen_share(n: int) -> float:
    """Return the largest failure rate consistent with `n` samples without a failure: about `3.7 / n`.

    This is the upper end of the interval of a proportion of 0 (Clopper and Pearson, Biometrika 1934).
    """
    return float(1 - _TAIL ** (1 / n))


@lru_cache(maxsize=256)
def _bounded_ends(
    values: tuple[float, ...], counts: tuple[int, ...], bounds: tuple[float, float]
) -> tuple[float, float]:
    """Compute the interval ends for distinct values with counts; cached, since classes often share them."""
    # Relative to each bound, so that values equal to it give exactly that end.
    above, below = (np.array(values) - bound for bound in bounds)
    n = len(values)
    draws = max(_RESAMPLES, min(_MAX_RESAMPLES, _CHUNK // n))
    # Usually each value occurs once, and then figures of as many samples share their weights.
    are_shared = max(counts) == 1 and draws * n <= _CHUNK
    drawn = [_equal_weights(n, draws)] if are_shared else _weights(counts, draws)
    ends = [(weights @ above / total, weights @ below / total) for weights, total in drawn]
    lows, highs = (np.concatenate(each) for each in zip(*ends, strict=True))
    return bounds[0] + float(np.quantile(lows, _TAIL)), bounds[1] + float(np.quantile(highs, 1 - _TAIL))


@lru_cache(maxsize=1)
def _equal_weights(n: int, draws: int) -> tuple[Scores, Scores]:
    """Return the weights of `n` distinct values and their totals; cached, since drawing them takes most of the time."""
    ((weights, total),) = _weights((1,) * n, draws)
    return weights, total


def _weights(counts: tuple[int, ...], draws: int) -> Iterator[tuple[Scores, Scores]]:
    """Yield resampled weights `[some, N]` of values with counts, and their totals with an unseen sample's weight."""
    generator, n = np.random.default_rng(_SEED), len(counts)
    rows = max(1, _CHUNK // n)
    for start in range(0, draws, rows):
        size = min(rows, draws - start), n
        # For distinct values, an exponential draw of the same distribution is cheaper.
        exponential = max(counts) == 1
        weights = generator.standard_exponential(size) if exponential else generator.standard_gamma(counts, size)
        yield weights, weights.sum(axis=1) + generator.standard_exponential(size[0])


def _rank(n: int, share: float) -> int:
    """Return the largest rank r with P(fewer than r of `n` samples in a population `share`) ≤ 2.5%; 0 if none."""
    k = np.arange(1, n + 1)
    steps = np.log(n - k + 1) - np.log(k) + math.log(share / (1 - share))
    chances = np.exp(n * math.log(1 - share) + np.concatenate([[0.0], np.cumsum(steps)]))
    return int((np.cumsum(chances) <= _TAIL).sum())


def _draws(n: int, resamples: int) -> Iterator[NDArray[np.int64]]:
    """Yield sample indices `[some, n]`, drawn with replacement, until there are `resamples` rows."""
    generator = np.random.default_rng(_SEED)
    rows = max(1, _CHUNK // n)
    for start in range(0, resamples, rows):
        yield generator.integers(0, n, (min(rows, resamples - start), n))
