"""Numbers that say how close two models' answers and reasons are: pure functions on arrays.

Logits are float `[N, K]`; maps are raw, signed float `[N, h, w]`, compared before any normalisation and at the size
that the model gives them, so that neither a colour scale nor an upsampling filter can make two maps look alike.
Scores come per image as float64 `[N]`; what to do with a NaN is decided where they are summed up.
"""

import numpy as np
from numpy.typing import NDArray

from kdedge_runtime.util.arrays import Floats, Integers

__all__ = [
    "agreement",
    "agrees",
    "derangement",
    "distance",
    "energy_inside",
    "is_constant",
    "is_right",
    "kl_divergence",
    "logits_error",
    "map_error",
    "map_pearson",
    "mean",
    "percentile",
    "pointing_game",
    "points_lost",
    "scale_error",
    "top1",
    "top1_accuracy",
    "top_share_iou",
]

Scores = NDArray[np.float64]
Flags = NDArray[np.bool_]

_FLAT = 1e-6
"""Range of a constant map as a share of its largest value: a few float32 roundings."""


def top1(logits: Floats) -> Integers:
    """The answer to each image, int64 `[N]`; -1 where the logits are not finite, which is no answer."""
    finite = np.isfinite(logits).all(axis=1)
    return np.where(finite, logits.argmax(axis=1), -1).astype(np.int64)


def is_right(logits: Floats, targets: Integers) -> Scores:
    """Whether each top class is the target, `[N]`, 1.0 or 0.0.

    Args:
        logits: float `[N, K]`.
        targets: int64 `[N]`.
    """
    return np.asarray(top1(logits) == targets, dtype=np.float64)


def points_lost(lost: Scores) -> float:
    """A mean `[N]` of what images lose, in percentage points.

    From whole images: the difference of two shares would put a drop of exactly one point above one point.
    """
    return 100 * float(lost.sum()) / len(lost)


def top1_accuracy(logits: Floats, targets: Integers) -> float:
    """Share of images in [0, 1] whose top class is the target.

    Args:
        logits: float `[N, K]`.
        targets: int64 `[N]`.
    """
    return float(is_right(logits, targets).mean())


def agrees(reference: Floats, candidate: Floats) -> Scores:
    """Whether both give the same top class, `[N]`, 1.0 or 0.0; two missing answers do not agree.

    Args:
        reference: logits, float `[N, K]`.
        candidate: likewise, of the same images.
    """
    answer = top1(reference)
    return np.asarray((answer == top1(candidate)) & (answer >= 0), dtype=np.float64)


def agreement(reference: Floats, candidate: Floats) -> float:
    """Share of images in [0, 1] on which both give the same top class.

    Args:
        reference: logits, float `[N, K]`.
        candidate: likewise, of the same images.
    """
    return float(agrees(reference, candidate).mean())


def kl_divergence(reference: Floats, candidate: Floats) -> Scores:
    """KL(reference || candidate) of the softmax at temperature 1, in nats, `[N]`, ≥ 0 up to rounding.

    Args:
        reference: logits, float `[N, K]`.
        candidate: likewise, of the same images.
    """
    log_p, log_q = _log_softmax(reference), _log_softmax(candidate)
    return np.asarray((np.exp(log_p) * (log_p - log_q)).sum(axis=1))


def logits_error(reference: Floats, candidate: Floats) -> Scores:
    """Largest difference between two answers in units of the reference's range, `[N]`, ≥ 0; NaN where not finite.

    Args:
        reference: logits, float `[N, K]`.
        candidate: likewise, of the same images.
    """
    return map_error(reference[:, None], candidate[:, None])


def distance(reference: Floats, candidate: Floats) -> Scores:
    """Distance of two answers in units of the sum of their sizes, `[N]` in [0, 1]; 1 where one is not finite.

    Of logits less their mean, which the softmax does not see. Logits that are three times as large lie 0.5 away, those
    that are a tenth as large 0.82; an error of 20 % of their size is 0.1.

    Args:
        reference: logits, float `[N, K]`.
        candidate: likewise, of the same images.
    """
    a, b = (some.astype(np.float64) - some.mean(axis=1, keepdims=True) for some in (reference, candidate))
    sizes = np.linalg.norm(a, axis=1) + np.linalg.norm(b, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.where(sizes == 0, 0.0, np.linalg.norm(b - a, axis=1) / sizes)
    return np.nan_to_num(found, nan=1.0)


def scale_error(reference: Floats, candidate: Floats) -> Scores:
    """Share by which the smaller of two maps falls short of the larger, `[N]` in [0, 1]; 1 where one is not finite.

    By the root of the sum of squares, so that it sees what the correlation does not. 0 where both are zero.

    Args:
        reference: raw maps, float `[N, h, w]`.
        candidate: likewise, of the same images.
    """
    a, b = (np.linalg.norm(_cells(maps), axis=1) for maps in (reference, candidate))
    smaller, larger = np.minimum(a, b), np.maximum(a, b)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.nan_to_num(np.where(larger == 0, 0.0, 1 - smaller / larger), nan=1.0)


def is_constant(maps: Floats) -> Flags:
    """Which maps say nothing about where, bool `[N]`: their range is within float32 rounding of their values.

    Args:
        maps: float `[N, h, w]`.
    """
    cells = _cells(maps)
    spread = cells.max(axis=1) - cells.min(axis=1)
    return np.asarray(spread <= _FLAT * np.abs(cells).max(axis=1))


def map_pearson(reference: Floats, candidate: Floats) -> Scores:
    """Pearson correlation of the cells of each pair of maps, `[N]` in [-1, 1].

    It ignores a map's scale and offset and sees only its shape. NaN where a map is constant or not finite.

    Args:
        reference: raw maps, float `[N, h, w]`.
        candidate: likewise, of the same images.
    """
    a, b = _cells(reference), _cells(candidate)
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    norms = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    with np.errstate(divide="ignore", invalid="ignore"):
        scores = np.clip((a * b).sum(axis=1) / norms, -1.0, 1.0)
    return np.where(is_constant(reference) | is_constant(candidate), np.nan, scores)


def top_share_iou(reference: Floats, candidate: Floats, share: float = 0.2) -> Scores:
    """Intersection over union of the cells that speak most for the class, `[N]` in [0, 1].

    Each map gives its `k = max(1, round(share · h · w))` largest cells; among equal cells the first in row order
    wins. Two unrelated maps score about `share / (2 - share)`: 0.11 at the default share of 0.2. NaN where a map is
    constant, since its largest cells are an accident, or not finite.

    Args:
        reference: raw maps, float `[N, h, w]`.
        candidate: likewise, of the same images.
        share: of all cells, in (0, 1].
    """
    a, b = _cells(reference), _cells(candidate)
    k = max(1, round(share * a.shape[1]))
    both = (_largest(a, k) & _largest(b, k)).sum(axis=1)
    undefined = is_constant(reference) | is_constant(candidate) | ~np.isfinite(a + b).all(axis=1)
    return np.where(undefined, np.nan, both / (2 * k - both))


def map_error(reference: Floats, candidate: Floats) -> Scores:
    """Largest difference between two maps in units of the reference's range, `[N]`, ≥ 0.

    Unlike the correlation it sees scale and offset: it is the test of an export that must change nothing. A constant
    reference has no range, so its largest absolute value takes that place; where this is 0 too, the error is 0 for
    equal maps and infinite otherwise. NaN where a map is not finite.

    Args:
        reference: raw maps, float `[N, h, w]`.
        candidate: likewise, of the same images.
    """
    a, b = _cells(reference), _cells(candidate)
    worst = np.abs(a - b).max(axis=1)
    spread = np.where(is_constant(reference), np.abs(a).max(axis=1), a.max(axis=1) - a.min(axis=1))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(worst == 0, 0.0, worst / spread)


def derangement(n: int) -> Integers:
    """A fixed shuffle of `n ≥ 2` images that leaves none in its place, int64 `[n]`.

    It is one cycle through all images in a seeded random order. Pairs made with it are of different pictures, so the
    agreement of their maps is the floor that centre bias alone reaches.

    Args:
        n: number of images, 2 or more.
    """
    order = np.random.default_rng(0).permutation(n)
    partner = np.empty(n, dtype=np.int64)
    partner[order] = np.roll(order, 1)
    return partner


def pointing_game(maps: Floats, masks: Flags) -> Scores:
    """Whether each map's maximum falls on the object, `[N]` in [0, 1] (Zhang et al. 2016, without tolerance).

    Equal maxima share the hit: a constant map scores the share of the picture that the object covers, as a random
    guess would, and not 1. NaN where a map is not finite.

    Args:
        maps: `[N, H, W]`, upsampled to the picture.
        masks: bool `[N, H, W]`, True on the object (see `kdedge_runtime.boxes`).
    """
    peaks = maps == maps.max(axis=(1, 2), keepdims=True)
    return _share((peaks & masks).sum(axis=(1, 2)), peaks.sum(axis=(1, 2)))


def energy_inside(maps: Floats, masks: Flags) -> Scores:
    """Share of each map's positive part that lies in the object, `[N]` in [0, 1] (Wang et al. 2020, Score-CAM).

    A map spread evenly scores the mask's area share. NaN where a map has no positive cell.

    Args:
        maps: `[N, H, W]`, upsampled to the picture.
        masks: bool `[N, H, W]`, True on the object.
    """
    positive = np.maximum(maps, 0.0).astype(np.float64)
    return _share((positive * masks).sum(axis=(1, 2)), positive.sum(axis=(1, 2)))


def mean(scores: Scores) -> float:
    """Mean over the images that have a score; NaN where none has."""
    defined = scores[~np.isnan(scores)]
    return float(defined.mean()) if defined.size else float("nan")


def percentile(scores: Scores, percent: float) -> float:
    """Percentile over the images that have a score; NaN where none has."""
    defined = scores[~np.isnan(scores)]
    return float(np.percentile(defined, percent)) if defined.size else float("nan")


def _cells(maps: Floats) -> Scores:
    return maps.reshape(len(maps), -1).astype(np.float64)


def _largest(cells: Scores, k: int) -> Flags:
    chosen = np.zeros(cells.shape, dtype=np.bool_)
    np.put_along_axis(chosen, np.argsort(-cells, axis=1, kind="stable")[:, :k], True, axis=1)
    return chosen


def _log_softmax(logits: Floats) -> Scores:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def _share(part: Scores, whole: Scores) -> Scores:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(part / whole, dtype=np.float64)
