"""Verification by embeddings: decide from their similarity whether two samples show the same class.

A pair of different samples is genuine if both have the same class, else an impostor pair. A pair is accepted if its
similarity reaches a threshold. The false accept rate (FAR) is the fraction of impostor pairs accepted, the true accept
rate (TAR) that of genuine pairs (Phillips et al., An introduction to evaluating biometric systems, Computer 33, 2000;
Grother et al., Face Recognition Vendor Test 1: Verification, NIST; ISO/IEC 19795-1).

Pairs that share a sample are dependent. Intervals therefore resample samples: a pair's weight is the product of the
counts of its two samples, and a sample is never paired with itself (Fogliato et al., Confidence intervals for error
rates in 1:1 matching tasks, arXiv:2306.01198). They hold for these classes, not for others.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kdedge_export.metrics.confidence import DIFFERENCE, LEVEL, SHARE, Interval
from kdedge_export.metrics.scores import Scores
from kdedge_runtime.util.arrays import Floats, Integers, evenly_spaced

__all__ = ["FALSE_ACCEPTS", "MAX_VERIFIED", "FileVerification", "Verification", "choose_verified", "verification"]

FALSE_ACCEPTS = 0.01
"""False accept rate at which true accepts are measured."""
MAX_VERIFIED = 1000
"""Maximum number of samples; they have 499,500 pairs."""
_A_CLASS = 5
"""Minimum number of samples per class if there are more samples than the maximum; otherwise classes are left out."""
_RESAMPLES, _SEED = 500, 0
_TAIL = (1 - LEVEL) / 2
_INVALID = -2.0
"""Similarity of an invalid embedding, below that of all others."""


@dataclass(frozen=True)
class FileVerification:
    """Verification by the embeddings of one file."""

    model: str
    equal_error: float
    """Equal error rate in [0, 1]: the rate at which false accepts and false rejections are equally frequent."""
    true_accepts: float
    """True accept rate in [0, 1], the largest with a false accept rate of at most `FALSE_ACCEPTS`."""
    drop: float | None
    """True accept rate of the fp32 file minus this file's, in [-1, 1]; None for the fp32 file."""
    intervals: Mapping[str, Interval | None]
    """95% intervals by field name; the drop's is of pairs. None if a resample has only one kind of pairs."""


@dataclass(frozen=True)
class Verification:
    """Verification by the embeddings of all files, on pairs of the same samples."""

    samples: int
    classes: int
    genuine: int
    """Number of genuine pairs."""
    impostors: int
    """Number of impostor pairs."""
    files: tuple[FileVerification, ...]


@dataclass(frozen=True)
class _RankedPairs:
    """Pairs of samples in order of falling similarity."""

    genuine: NDArray[np.intp]
    """Sample indices `[2, G]` of genuine pairs."""
    impostors: NDArray[np.intp]
    """Sample indices `[2, I]` of impostor pairs."""
    accepted_genuine: Integers
    """Number of genuine pairs accepted, at thresholds that fall from accepting none to accepting all."""
    accepted_impostors: Integers


@dataclass(frozen=True)
class _Resamples:
    counts: NDArray[np.int64]
    """Number of times each sample was drawn, `[resamples, N]`."""
    unseen: Scores
    """Weight of an unseen sample's pairs relative to all, `[resamples]`."""


def choose_verified(classes: Integers) -> NDArray[np.intp]:
    """Choose at most `MAX_VERIFIED` samples, evenly spaced by class, with five or more of a class if possible.

    Args:
        classes: int64 `[N]`, the class of each sample.

    Returns:
        Sample indices, in order of their classes.
    """
    order = np.argsort(classes, kind="stable")
    if len(order) <= MAX_VERIFIED:
        return order
    present = np.unique(classes)
    some = present[evenly_spaced(len(present), MAX_VERIFIED // _A_CLASS)]
    of_these = order[np.isin(classes[order], some)]
    return np.asarray(of_these[evenly_spaced(len(of_these), MAX_VERIFIED)])


def verification(embeddings: Mapping[str, Floats], reference: str, classes: Integers) -> Verification | None:
    """Measure verification by the embeddings of files, and the loss of true accepts against the fp32 file.

    All files are resampled alike. The intervals allow for unseen failures: for an additional sample whose pairs all
    have the worst result (see `kdedge_export.metrics.confidence`). A sample is part of two pairs in `n`, so that it
    counts twice. Pairs of an embedding that is not finite are accepted last.

    Args:
        embeddings: L2-normalized embeddings `[N, D]` by name of the file, of the same samples.
        reference: name of the fp32 file.
        classes: int64 `[N]`, the class of each sample.

    Returns:
        The results, the fp32 file's first; None without a genuine or without an impostor pair.
    """
    first, second = np.triu_indices(len(classes), 1)
    same = classes[first] == classes[second]
    if not same.any() or same.all():
        return None
    drawn = _draw(classes)
    base: tuple[float, Scores] | None = None
    rows = []
    for role in (reference, *(name for name in embeddings if name != reference)):
        ranked = _rank(_similarities(embeddings[role])[first, second], first, second, same)
        equal_error, true_accepts = _rates(ranked, np.ones(len(classes), np.int64))
        resampled = np.array([_rates(ranked, counts) for counts in drawn.counts])
        intervals = {
            "equal_error": _interval(resampled[:, 0], drawn.unseen, SHARE),
            "true_accepts": _interval(resampled[:, 1], drawn.unseen, SHARE),
        }
        drop = None
        if base is None:
            base = true_accepts, resampled[:, 1]
        else:
            drop = base[0] - true_accepts
            intervals["drop"] = _interval(base[1] - resampled[:, 1], drawn.unseen, DIFFERENCE)
        rows.append(FileVerification(role, equal_error, true_accepts, drop, intervals))
    return Verification(len(classes), len(np.unique(classes)), int(same.sum()), int((~same).sum()), tuple(rows))


def _similarities(embeddings: Floats) -> Scores:
    finite = np.asarray(np.isfinite(embeddings).all(axis=1))
    valid = np.where(finite[:, None], embeddings, 0.0).astype(np.float64)
    return np.where(finite[:, None] & finite, valid @ valid.T, _INVALID)


def _rank(
    similarity: Scores, first: NDArray[np.intp], second: NDArray[np.intp], same: NDArray[np.bool_]
) -> _RankedPairs:
    order = np.argsort(-similarity, kind="stable")
    pairs, same = np.stack([first[order], second[order]]), same[order]
    # Pairs of equal similarity are accepted together.
    ends = np.append(np.flatnonzero(np.diff(similarity[order])), len(order) - 1)
    accepted = [np.concatenate([[0], np.cumsum(kind)[ends]]) for kind in (same, ~same)]
    return _RankedPairs(pairs[:, same], pairs[:, ~same], *accepted)


def _rates(ranked: _RankedPairs, counts: NDArray[np.int64]) -> tuple[float, float]:
    """Return the equal error rate and the true accept rate for samples with these counts; NaN without both kinds."""
    genuine, impostors = (_cumulated(pairs, counts) for pairs in (ranked.genuine, ranked.impostors))
    if not genuine[-1] or not impostors[-1]:
        return math.nan, math.nan
    thresholds = range(len(ranked.accepted_genuine))

    def true_accepts(threshold: int) -> float:
        return float(genuine[ranked.accepted_genuine[threshold]] / genuine[-1])

    def false_accepts(threshold: int) -> float:
        return float(impostors[ranked.accepted_impostors[threshold]] / impostors[-1])

    def excess(threshold: int) -> float:
        """Return the false accept rate minus the false rejection rate, which rises from -1 to 1."""
        return false_accepts(threshold) - (1 - true_accepts(threshold))

    after = bisect_left(thresholds, 0.0, key=excess)
    before = after - 1
    share = -excess(before) / (excess(after) - excess(before))
    equal_error = false_accepts(before) + share * (false_accepts(after) - false_accepts(before))
    return equal_error, true_accepts(bisect_right(thresholds, FALSE_ACCEPTS, key=false_accepts) - 1)


def _cumulated(pairs: NDArray[np.intp], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the weight of the first 0, 1, 2, … pairs."""
    weights = counts.take(pairs[0])  # faster than an index, and this is most of the time
    weights *= counts.take(pairs[1])
    cumulated = np.empty(len(weights) + 1, np.int64)
    cumulated[0] = 0
    np.cumsum(weights, out=cumulated[1:])
    return cumulated


def _draw(classes: Integers) -> _Resamples:
    generator, n = np.random.default_rng(_SEED), len(classes)
    counts = generator.multinomial(n, np.full(n, 1 / n), _RESAMPLES)
    sizes = np.bincount(np.unique(classes, return_inverse=True)[1])
    paired = sizes[sizes > 1].sum()
    return _Resamples(counts, 2 * generator.standard_exponential(_RESAMPLES) / paired)


def _interval(values: Scores, unseen: Scores, bounds: tuple[float, float]) -> Interval | None:
    """Return the interval of resampled rates; None if a rate is undefined."""
    if np.isnan(values).any():
        return None
    low, high = ((values + unseen * bound) / (1 + unseen) for bound in bounds)
    return Interval(float(np.quantile(low, _TAIL)), float(np.quantile(high, 1 - _TAIL)))
