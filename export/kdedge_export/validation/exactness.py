"""Error of the fp32 file relative to PyTorch, compared with the float32 rounding error of each sample."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from kdedge_export.metrics import agreement, map_similarity
from kdedge_export.metrics.scores import Scores
from kdedge_export.metrics.task_metrics import TaskMetrics
from kdedge_export.metrics.torch_predictions import Predictions, TorchModel
from kdedge_export.validation.aligned_maps import align_activations, has_boundaries
from kdedge_export.validation.float_tolerance import FloatTolerance, WorstCase, measure_float_tolerance, worst_case
from kdedge_runtime import Model
from kdedge_runtime.modalities import Sample
from kdedge_runtime.util.arrays import Integers

__all__ = ["AlignedSample", "Bounds", "Exactness", "measure_exactness"]

DOUBTED_SAMPLES = 16
"""Batch size for measuring PyTorch's rounding error, repeated until an error exceeds it."""


@dataclass(frozen=True)
class Bounds:
    """Largest errors accepted without measuring the rounding error."""

    logits: float
    """Bound on the logits error, relative to the range of the sample's logits."""
    divergence: float
    """Bound on the divergence, in nats."""
    maps: float
    """Bound on the map error, relative to the range of the sample's map."""
    ceiling: float
    """Largest error of each kind that rounding may explain."""


@dataclass(frozen=True)
class AlignedSample:
    """Sample whose map was compared with PyTorch's after moving units to the file's side of their kinks."""

    sample: int
    """Sample index."""
    moved: int
    """Number of units moved, each within its own rounding error."""
    raw_error: float
    """Error of the file's map relative to PyTorch's unmodified map, in units of its range."""
    error: float
    """Error relative to PyTorch's map with the units moved."""
    raw_pearson: float
    """Correlation with PyTorch's unmodified map."""
    pearson: float


@dataclass(frozen=True)
class Exactness:
    """Decisive sample for each kind of error."""

    logits: WorstCase
    divergence: WorstCase
    maps: WorstCase | None
    """Map error; None if the maps cannot be compared."""
    aligned: tuple[AlignedSample, ...] = ()
    """Samples whose PyTorch map was recomputed with units on the file's sides of their kinks."""


def measure_exactness(
    student: TorchModel,
    fp32: Model,
    samples: Sample,
    ours: Predictions,
    theirs: Predictions,
    bounds: Bounds,
    task: TaskMetrics,
) -> Exactness:
    """Compare the fp32 file's logits and maps with PyTorch's.

    Args:
        student: the exported module.
        fp32: its model file.
        samples: preprocessed samples `[N, …]`.
        ours: the student's predictions.
        theirs: the file's predictions for the same classes.
        bounds: bounds on the errors.
        task: metrics of the model's task.
    """
    rounding = _Roundings(student, samples, ours.explained_class, task)
    reference, aligned = _at_the_same_boundaries(student, fp32, samples, ours, theirs, bounds.maps)

    def decide(errors: Scores, bound: float, kind: Callable[[FloatTolerance], Scores]) -> WorstCase:
        return _decide(errors, bound, bounds.ceiling, lambda numbers: kind(rounding.of(numbers)))

    logits = decide(agreement.logits_error(ours.logits, theirs.logits), bounds.logits, lambda found: found.logits)
    divergence = decide(task.divergence(ours.logits, theirs.logits), bounds.divergence, lambda found: found.divergence)
    maps = None
    if reference.maps is not None and theirs.maps is not None and reference.maps.shape == theirs.maps.shape:
        wrong = ours.explained_class != theirs.explained_class
        errors = np.where(wrong, np.inf, map_similarity.map_error(reference.maps, theirs.maps))
        maps = decide(errors, bounds.maps, lambda found: found.maps)
    return Exactness(logits, divergence, maps, aligned)


class _Roundings:
    """Cache of PyTorch's rounding error per sample."""

    def __init__(self, student: TorchModel, samples: Sample, classes: Integers, task: TaskMetrics) -> None:
        self._student, self._samples, self._classes, self._task = student, samples, classes, task
        blank = np.full(len(samples), np.nan)
        self._found = FloatTolerance(blank.copy(), blank.copy(), blank.copy())
        self._known = np.zeros(len(samples), np.bool_)

    def of(self, numbers: Integers) -> FloatTolerance:
        """Return the rounding errors of samples by index."""
        missing = numbers[~self._known[numbers]]
        if len(missing):
            found = measure_float_tolerance(self._student, self._samples[missing], self._classes[missing], self._task)
            for name, values in vars(found).items():
                getattr(self._found, name)[missing] = values
            self._known[missing] = True
        return FloatTolerance(self._found.logits[numbers], self._found.divergence[numbers], self._found.maps[numbers])


def _decide(errors: Scores, bound: float, ceiling: float, rounding_of: Callable[[Integers], Scores]) -> WorstCase:
    """Compare each error with the rounding error of its own sample, worst first."""
    rounding = np.zeros_like(errors)
    doubted = np.flatnonzero(~(errors <= bound))
    doubted = doubted[np.argsort(-np.nan_to_num(errors[doubted], nan=np.inf), kind="stable")]
    for start in range(0, len(doubted), DOUBTED_SAMPLES):
        some = doubted[start : start + DOUBTED_SAMPLES]
        rounding[some] = rounding_of(some)
        if not (errors[some] <= rounding[some]).all():  # decisive: the remaining samples cannot change the outcome
            return worst_case(errors[some], rounding[some], bound, ceiling)
    return worst_case(errors, rounding, bound, ceiling)


def _at_the_same_boundaries(
    student: TorchModel, fp32: Model, samples: Sample, ours: Predictions, theirs: Predictions, tolerance: float
) -> tuple[Predictions, tuple[AlignedSample, ...]]:
    """Return the student's predictions, with units of differing maps moved to the file's sides of their kinks."""
    if not has_boundaries(student) or ours.maps is None or theirs.maps is None or ours.maps.shape != theirs.maps.shape:
        return ours, ()
    errors = map_similarity.map_error(ours.maps, theirs.maps)
    differing = np.flatnonzero(errors > tolerance)
    if not len(differing):
        return ours, ()
    found = align_activations(student, fp32, samples[differing], ours.explained_class[differing])
    maps = ours.maps.copy()
    maps[differing] = found.maps
    after, before = (map_similarity.map_pearson(some, theirs.maps) for some in (maps, ours.maps))
    now = map_similarity.map_error(maps, theirs.maps)
    aligned = tuple(
        AlignedSample(int(sample), int(moved), *(float(some[sample]) for some in (errors, now, before, after)))
        for sample, moved in zip(differing, found.moved, strict=True)
        if moved
    )
    return replace(ours, maps=maps), aligned
