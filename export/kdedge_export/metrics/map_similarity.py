"""Similarity of two models' saliency maps, and of maps and objects: pure functions on arrays.

Maps are raw, signed float `[N, h, w]`, compared before any normalization and at their native resolution, so that no
color scale or upsampling filter can make two maps look alike. Scores are float64 `[N]`, one per sample; NaN is handled
where they are aggregated.
"""

import numpy as np
from numpy.typing import NDArray

from kdedge_export.metrics.scores import Scores
from kdedge_runtime.util.arrays import Floats, Integers

__all__ = [
    "energy_inside",
    "is_constant",
    "map_error",
    "map_pearson",
    "permute_pairs",
    "pointing_game",
    "scale_error",
    "topk_iou",
]

Flags = NDArray[np.bool_]

_FLAT = 1e-6
"""Range of a constant map, relative to its largest absolute value: a few float32 roundings."""


def scale_error(reference: Floats, candidate: Floats) -> Scores:
    """Compute the relative difference of two maps' norms, `[N]` in [0, 1]; 1 if either is not finite.

    It uses the Euclidean norm and measures the scale, which the correlation ignores. It is 0 if both maps are zero.

    Args:
        reference: raw maps, float `[N, h, w]`.
        candidate: raw maps of the same samples.
    """
    a, b = (np.linalg.norm(_positions(maps), axis=1) for maps in (reference, candidate))
    smaller, larger = np.minimum(a, b), np.maximum(a, b)
    with np.errstate(divide="ignore", invalid="ignore"):
        found: Scores = np.nan_to_num(np.where(larger == 0, 0.0, 1 - smaller / larger), nan=1.0)
    return found


def is_constant(maps: Floats) -> Flags:
    """Return True for constant maps, bool `[N]`: their range is within float32 rounding of their values.

    Args:
        maps: float `[N, h, w]`.
    """
    positions = _positions(maps)
    spread = positions.max(axis=1) - positions.min(axis=1)
    return np.asarray(spread <= _FLAT * np.abs(positions).max(axis=1))


def map_pearson(reference: Floats, candidate: Floats) -> Scores:
    """Compute the Pearson correlation of each pair of maps, `[N]` in [-1, 1].

    It is invariant to a map's scale and offset. NaN if a map is constant or not finite.

    Args:
        reference: raw maps, float `[N, h, w]`.
        candidate: raw maps of the same samples.
    """
    a, b = _positions(reference), _positions(candidate)
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    norms = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    with np.errstate(divide="ignore", invalid="ignore"):
        scores = np.clip((a * b).sum(axis=1) / norms, -1.0, 1.0)
    return np.where(is_constant(reference) | is_constant(candidate), np.nan, scores)


def topk_iou(reference: Floats, candidate: Floats, share: float = 0.2) -> Scores:
    """Compute the intersection over union of the top positions of two maps, `[N]` in [0, 1].

    The `k = max(1, round(share · h · w))` largest values of each map are compared; ties resolve in row order. Two
    unrelated maps score about `share / (2 - share)`: 0.11 at the default share of 0.2. NaN if a map is constant, since
    its largest values are arbitrary, or not finite.

    Args:
        reference: raw maps, float `[N, h, w]`.
        candidate: raw maps of the same samples.
        share: fraction of positions, in (0, 1].
    """
    a, b = _positions(reference), _positions(candidate)
    k = max(1, round(share * a.shape[1]))
    both = (_largest(a, k) & _largest(b, k)).sum(axis=1)
    undefined = is_constant(reference) | is_constant(candidate) | ~np.isfinite(a + b).all(axis=1)
    return np.where(undefined, np.nan, both / (2 * k - both))


def map_error(reference: Floats, candidate: Floats) -> Scores:
    """Compute the largest difference between two maps relative to the reference's range, `[N]`, ≥ 0.

    Unlike the correlation it is sensitive to scale and offset, as needed for verifying an export. A constant reference
    uses its largest absolute value instead of its range. If that is 0 as well, the error is 0 for equal maps and
    infinite otherwise. NaN if a map is not finite.

    Args:
        reference: raw maps, float `[N, h, w]`.
        candidate: raw maps of the same samples.
    """
    a, b = _positions(reference), _positions(candidate)
    worst = np.abs(a - b).max(axis=1)
    spread = np.where(is_constant(reference), np.abs(a).max(axis=1), a.max(axis=1) - a.min(axis=1))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(worst == 0, 0.0, worst / spread)


def permute_pairs(n: int) -> Integers:
    """Return a fixed permutation of `n ≥ 2` samples without fixed points, int64 `[n]`.

    It is a single cycle in a seeded random order. It pairs each sample with a different one, so that the agreement of
    their maps measures the floor due to center bias alone.

    Args:
        n: number of samples, 2 or more.
    """
    order = np.random.default_rng(0).permutation(n)
    partner = np.empty(n, dtype=np.int64)
    partner[order] = np.roll(order, 1)
    return partner


def pointing_game(maps: Floats, masks: Flags) -> Scores:
    """Score the pointing game per sample, `[N]` in [0, 1] (Zhang et al. 2016, without tolerance).

    The score is 1 if the map's maximum lies on the object. Equal maxima share the hit, so a constant map scores the
    object's area fraction, as random guessing would. NaN if a map is not finite.

    Args:
        maps: `[N, H, W]`, upsampled to the image size.
        masks: bool `[N, H, W]`, True on the object (see `kdedge_runtime.boxes`).
    """
    peaks = maps == maps.max(axis=(1, 2), keepdims=True)
    return _share((peaks & masks).sum(axis=(1, 2)), peaks.sum(axis=(1, 2)))


def energy_inside(maps: Floats, masks: Flags) -> Scores:
    """Compute the fraction of each map's positive part on the object, `[N]` in [0, 1] (Wang et al. 2020, Score-CAM).

    A uniform map scores the mask's area fraction. NaN if a map has no positive value.

    Args:
        maps: `[N, H, W]`, upsampled to the image size.
        masks: bool `[N, H, W]`, True on the object.
    """
    positive = np.maximum(maps, 0.0).astype(np.float64)
    return _share((positive * masks).sum(axis=(1, 2)), positive.sum(axis=(1, 2)))


def _positions(maps: Floats) -> Scores:
    return maps.reshape(len(maps), -1).astype(np.float64)


def _largest(positions: Scores, k: int) -> Flags:
    chosen = np.zeros(positions.shape, dtype=np.bool_)
    np.put_along_axis(chosen, np.argsort(-positions, axis=1, kind="stable")[:, :k], True, axis=1)
    return chosen


def _share(part: Scores, whole: Scores) -> Scores:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(part / whole, dtype=np.float64)
