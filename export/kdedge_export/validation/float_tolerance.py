"""Float32 rounding error of a network: the deviation of PyTorch's float32 results from float64.

Rounding errors grow in an ill-conditioned network, such as a deep one on samples unlike those of its batch statistics.
PyTorch and ONNX Runtime sum in different orders and approximate exponentials differently. Both may then deviate from
the exact result, and from each other, by more than a bound for well-conditioned networks. The deviation differs between
samples, so each sample is compared with its own. If rounding could change a map visibly, agreement within it is
inconclusive.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kdedge_export.metrics import agreement, map_similarity
from kdedge_export.metrics.scores import Scores
from kdedge_export.metrics.task_metrics import TaskMetrics
from kdedge_export.metrics.torch_predictions import Predictions, TorchModel, predict
from kdedge_export.validation.aligned_maps import activation_pattern_float64, has_boundaries, in_float64
from kdedge_runtime.modalities import Sample
from kdedge_runtime.util.arrays import Integers

__all__ = ["CEILING", "WorstCase", "FloatTolerance", "worst_case", "measure_float_tolerance", "is_tied"]

CEILING = 1e-2
"""Largest error, relative to the range, that rounding may explain; visible errors are never attributed to rounding."""
_TIMES = 4
"""Safety factor: a file may lose two bits more than PyTorch; the worse of two unfavorable sums costs about one."""
_AT_A_TIME = 16
"""Batch size; the search continues while the last batch contained ties."""


@dataclass(frozen=True)
class WorstCase:
    """Decisive sample among several."""

    error: float
    """Error of the file relative to PyTorch, in units of the sample's range."""
    bound: float
    """Bound for this sample."""
    rounding: float
    """Error that float32 rounding would explain."""
    outcome: Literal["passed", "failed", "inconclusive"]
    """Outcome; `inconclusive` if rounding explains the error but exceeds the ceiling."""


def worst_case(
    errors: NDArray[np.float64], rounding: NDArray[np.float64], tolerance: float, ceiling: float = CEILING
) -> WorstCase:
    """Compare errors with the rounding error of their own samples and return the decisive one.

    Args:
        errors: `[N]`, N ≥ 1, in units of each sample's range; non-finite errors fail.
        rounding: `[N]`, of the same samples (see `measure_float_tolerance`).
        tolerance: error accepted without explanation.
        ceiling: largest error that rounding may explain.
    """
    allowed = np.maximum(tolerance, np.nan_to_num(rounding, nan=0.0))
    bounds = np.minimum(allowed, max(tolerance, ceiling))
    broken = ~(errors <= allowed)  # negated so that NaN fails
    unshown = ~broken & (errors > bounds)
    outcome: Literal["passed", "failed", "inconclusive"] = (
        "failed" if broken.any() else "inconclusive" if unshown.any() else "passed"
    )
    candidates = np.flatnonzero(broken if broken.any() else unshown if unshown.any() else errors <= allowed)
    excess = np.nan_to_num(errors[candidates] / bounds[candidates], nan=np.inf)
    worst = candidates[excess.argmax()]
    return WorstCase(float(errors[worst]), float(bounds[worst]), float(allowed[worst]), outcome)


@dataclass(frozen=True)
class FloatTolerance:
    """Errors of a file relative to PyTorch that rounding alone explains, `[N]` each."""

    logits: Scores
    """Largest logits error, relative to the logits' range."""
    divergence: Scores
    """Divergence of the predictions, in nats."""
    maps: Scores
    """Largest map error, relative to the map's range; 0 without maps."""


def measure_float_tolerance(
    module: TorchModel, samples: Sample, classes: Integers, task: TaskMetrics
) -> FloatTolerance:
    """Measure how far rounding alone may move a file's logits and maps from PyTorch's.

    In a well-conditioned network this is about 1e-6, so other errors stay visible.

    Args:
        module: float32 module: `ExportableModel`, or `ClassifierOnly` without maps.
        samples: preprocessed samples `[N, …]`.
        classes: int64 `[N]`, the explained classes.
        task: metrics of the model's task.

    Returns:
        Four times the largest float32 error relative to float64, and 16 times the divergence, which grows
            quadratically.
    """
    single = predict(module, samples, classes)
    with in_float64(module):
        double = predict(module, samples, classes)
    logits = _TIMES * agreement.logits_error(double.logits, single.logits)
    divergence = _TIMES**2 * task.divergence(double.logits, single.logits)
    if single.maps is None or double.maps is None:
        return FloatTolerance(logits, divergence, np.zeros_like(logits))
    # A unit that crosses its kink by rounding does not reflect the rounding error elsewhere (see `aligned_maps`).
    maps = activation_pattern_float64(module, samples, classes) if has_boundaries(module) else single.maps
    return FloatTolerance(logits, divergence, _TIMES * map_similarity.map_error(double.maps, maps))


def is_tied(
    module: TorchModel,
    samples: Sample,
    ours: Predictions,
    theirs: Predictions,
    task: TaskMetrics,
    ceiling: float = CEILING,
) -> int:
    """Count samples whose prediction differs only because two logits are tied within rounding error.

    Args:
        module: float32 module, as for `measure_float_tolerance`.
        samples: preprocessed samples `[N, …]`.
        ours: the module's predictions.
        theirs: the file's predictions.
        task: metrics of the model's task, which has classes.
        ceiling: largest error, relative to the logits' range, that rounding may explain.
    """
    first, other = agreement.top1(ours.logits), agreement.top1(theirs.logits)
    differing = np.flatnonzero((first != other) & (first >= 0) & (other >= 0))
    some = ours.logits[differing].astype(np.float64)
    ahead = some[np.arange(len(some)), first[differing]] - some[np.arange(len(some)), other[differing]]
    gaps = ahead / np.ptp(some, axis=1)
    order = np.argsort(gaps, kind="stable")
    ties = 0
    for start in range(0, len(order), _AT_A_TIME):
        chosen = order[start : start + _AT_A_TIME]
        doubted = differing[chosen]
        rounding = measure_float_tolerance(module, samples[doubted], ours.explained_class[doubted], task).logits
        # Each of the two logits may be off by that much.
        tied = int((gaps[chosen] <= 2 * np.minimum(np.nan_to_num(rounding), ceiling)).sum())
        if not tied:
            break
        ties += tied
    return ties
