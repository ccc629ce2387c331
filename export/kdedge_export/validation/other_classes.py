"""Comparison of maps for classes other than the top-1 class."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from kdedge_export.metrics.comparison import pair_pearson
from kdedge_export.metrics.scores import mean
from kdedge_export.metrics.task_metrics import TaskMetrics
from kdedge_export.metrics.torch_predictions import TorchModel, predict
from kdedge_export.validation.exactness import Bounds, measure_exactness
from kdedge_export.validation.float_tolerance import WorstCase
from kdedge_runtime import Model
from kdedge_runtime.precision import FP32
from kdedge_runtime.util.arrays import Integers, Pixels

__all__ = ["OTHER_CLASS_SAMPLES", "OtherClasses", "compare_other_classes", "other_classes"]

OTHER_CLASS_SAMPLES = 32
"""Maximum number of samples for this comparison."""


@dataclass(frozen=True)
class OtherClasses:
    """Agreement of maps of one other class per sample with the reference's."""

    samples: int
    fp32_error: WorstCase | None
    """Map error of the fp32 file; None if the maps cannot be compared or the fp32 file is the reference."""
    pearson: Mapping[str, float]
    """Mean map correlation of the other files by name; files without a map are missing."""


def other_classes(top: Integers, count: int) -> Integers:
    """Return a class per sample other than its top-1 class, cycling through all classes.

    Args:
        top: int64 `[N]`, the top-1 classes.
        count: number of classes, 2 or more.
    """
    return (top + 1 + np.arange(len(top)) % (count - 1)) % count


def compare_other_classes(
    reference: TorchModel | Model,
    files: Mapping[str, Model],
    samples: Pixels,
    top: Integers,
    count: int,
    bounds: Bounds,
    task: TaskMetrics,
) -> OtherClasses:
    """Compare maps of classes other than the top-1 class.

    Args:
        reference: the exported module, with a map; or the fp32 file itself.
        files: model files by name.
        samples: preprocessed samples `[N, …]`.
        top: int64 `[N]`, the reference's predictions.
        count: number of classes, 2 or more.
        bounds: bounds on the fp32 file's errors.
        task: metrics of the models' task.
    """
    requested = other_classes(top, count)
    ours, error = predict(reference, samples, requested), None
    if not isinstance(reference, Model):
        theirs = predict(files[FP32.name], samples, requested)
        error = measure_exactness(reference, files[FP32.name], samples, ours, theirs, bounds, task).maps
    pearson = {}
    for name, file in files.items():
        if name == FP32.name or (scores := pair_pearson(ours, predict(file, samples, requested))) is None:
            continue
        if not np.isnan(scores).all():
            pearson[name] = mean(scores)
    return OtherClasses(len(samples), error, pearson)
