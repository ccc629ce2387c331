"""Disagreement between models: pure functions on predictions and maps."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kdedge_export.metrics import map_similarity
from kdedge_export.metrics.resampling import area_mean
from kdedge_export.metrics.scores import Scores
from kdedge_runtime.util.arrays import Floats, Integers, Targets

__all__ = ["class_accuracy", "differing_classes", "differing_values", "disagreement", "most_informative"]

Flags = NDArray[np.bool_]


def class_accuracy(right: Flags, targets: Targets, classes: int) -> Scores:
    """Compute the accuracy per class, `[classes]` in [0, 1]; NaN for a class without samples.

    Args:
        right: bool `[N]`, True for correct predictions.
        targets: int64 `[N]`, ground-truth class of each sample.
        classes: number of classes.
    """
    samples = np.bincount(targets, minlength=classes)
    hits = np.bincount(targets[right], minlength=classes)
    return np.asarray(np.divide(hits, samples, out=np.full(classes, np.nan), where=samples > 0))


def differing_classes(predictions: Sequence[Integers]) -> Scores:
    """Compute the fraction of model pairs with different classes on each sample, `[N]` in [0, 1].

    Args:
        predictions: int64 `[N]` classes of each of two or more models.
    """
    stack = np.stack(predictions)
    count = len(stack)
    equal = (stack[:, None] == stack[None]).sum(axis=(0, 1)) - count
    return np.asarray(1 - equal / (count * (count - 1)))


def differing_values(predictions: Sequence[Floats], measured: Targets) -> Scores:
    """Compute the mean absolute difference of two models' values on each sample, `[N]`, at least 0.

    It is the mean over model pairs, divided by the standard deviation of the measured values, so that it has no unit.
    A value that is not finite differs infinitely from one that is.

    Args:
        predictions: float `[N]` values of each of two or more models.
        measured: ground truth `[N]`; equal values have the deviation 1.
    """
    stack = np.stack(predictions).astype(np.float64)
    valid, count = np.isfinite(stack), len(stack)
    total = np.zeros(stack.shape[1])
    for own, own_valid in zip(stack, valid, strict=True):
        apart = np.abs(np.subtract(stack, own, where=valid & own_valid, out=np.zeros_like(stack)))
        total += np.where(valid == own_valid, apart, np.inf).sum(axis=0)
    deviation = float(measured.astype(np.float64).std()) or 1.0
    return np.asarray(total / (count * (count - 1) * deviation))


def disagreement(differences: Scores, maps: Sequence[Floats]) -> Scores:
    """Add the difference of maps to that of predictions, `[N]`.

    It is the mean of `(1 - r) / 2` over pairs of maps, in [0, 1] (see `map_similarity.map_pearson`; r is 0 for a
    constant map).

    Args:
        differences: difference of the predictions on each sample, `[N]`.
        maps: raw signed maps `[N, h, w]` of models that have them, all for the same output of a sample. They are
            compared at their smallest size. Fewer than two add nothing.
    """
    return np.asarray(differences + (1 - _mean_correlation(maps)) / 2 if len(maps) > 1 else differences)


def most_informative(scores: Scores, strata: Integers, count: int) -> list[int]:
    """Return the indices of at most `count` samples with the highest scores, spread evenly over the strata.

    Args:
        scores: score of each sample, `[N]`.
        strata: stratum of each sample, int64 `[N]`, such as its class.
        count: largest number of indices.
    """
    each = -(-count // len(np.unique(strata)))
    taken: dict[int, int] = {}
    chosen: list[int] = []
    for number in np.argsort(-scores, kind="stable"):
        stratum = int(strata[number])
        if taken.get(stratum, 0) < each and len(chosen) < count:
            taken[stratum] = taken.get(stratum, 0) + 1
            chosen.append(int(number))
    return chosen


def _mean_correlation(maps: Sequence[Floats]) -> Scores:
    """Compute the mean of r over all pairs of maps of each sample, `[N]`."""
    height, width = (min(stack.shape[axis] for stack in maps) for axis in (1, 2))
    samples, count = len(maps[0]), len(maps)
    total, lengths = np.zeros((samples, height * width)), np.zeros(samples)
    for own in maps:
        stack = own if own.shape[1:] == (height, width) else area_mean(own, height, width)
        positions = np.nan_to_num(stack.reshape(len(stack), -1).astype(np.float64), posinf=0.0, neginf=0.0)
        positions -= positions.mean(axis=1, keepdims=True)
        norm = np.linalg.norm(positions, axis=1, keepdims=True)
        flat = map_similarity.is_constant(stack)[:, None] | (norm == 0)
        unit = np.divide(positions, norm, out=np.zeros_like(positions), where=~flat)
        total += unit
        lengths += (unit * unit).sum(axis=1)
    # The squared length of a sum of unit vectors is their number plus twice the sum of all pairwise products.
    return np.asarray(((total * total).sum(axis=1) - lengths) / (count * (count - 1)))
