"""Disagreement between models: pure functions on predictions and maps."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kdedge_export.metrics import map_similarity
from kdedge_export.metrics.resampling import area_mean
from kdedge_export.metrics.scores import Scores
from kdedge_runtime.util.arrays import Floats, Integers, Targets

__all__ = ["class_accuracy", "disagreement", "most_informative"]

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


def disagreement(predictions: Sequence[Integers], maps: Sequence[Floats]) -> Scores:
    """Compute the disagreement of models on each sample, `[N]` in [0, 2].

    It is the fraction of model pairs with different predictions, plus the mean of `(1 - r) / 2` over pairs of maps (see
    `map_similarity.map_pearson`; r is 0 for a constant map).

    Args:
        predictions: int64 `[N]` predictions of each of two or more models.
        maps: raw signed maps `[N, h, w]` of models that have them, all for the same class of a sample. They are
            compared at their smallest size.
    """
    stack = np.stack(predictions)
    count = len(stack)
    equal = (stack[:, None] == stack[None]).sum(axis=(0, 1)) - count
    differing = 1 - equal / (count * (count - 1))
    return np.asarray(differing + (1 - _mean_correlation(maps)) / 2 if len(maps) > 1 else differing)


def most_informative(scores: Scores, targets: Targets, count: int) -> list[int]:
    """Return the indices of at most `count` samples with the highest scores, spread evenly over the classes."""
    classes = len(np.unique(targets))
    each = -(-count // classes)
    taken: dict[int, int] = {}
    chosen: list[int] = []
    for number in np.argsort(-scores, kind="stable"):
        target = int(targets[number])
        if taken.get(target, 0) < each and len(chosen) < count:
            taken[target] = taken.get(target, 0) + 1
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
