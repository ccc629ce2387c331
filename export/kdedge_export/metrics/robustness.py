"""Robustness of predictions and saliency maps to corruptions of the samples."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from kdedge_export.metrics.comparison import pair_pearson
from kdedge_export.metrics.confidence import CORRELATION, SHARE, Interval, mean_interval
from kdedge_export.metrics.scores import mean
from kdedge_export.metrics.task_metrics import TaskMetrics
from kdedge_export.metrics.torch_predictions import Predictions, TorchModel, predict
from kdedge_export.modalities import Corruption
from kdedge_runtime import Model
from kdedge_runtime.modalities import Sample
from kdedge_runtime.util.arrays import Targets

__all__ = ["Robustness", "robustness"]


@dataclass(frozen=True)
class Robustness:
    """Results of a model file on corrupted samples."""

    corruption: str
    """Name with severity; a key of `ExportModality.corruptions`."""
    model: str
    """Name of the file's candidate."""
    accuracy: float | None
    """Accuracy of the task, such as top-1 in [0, 1]; None without labels."""
    agreement: float | None
    """Fraction of samples in [0, 1] with the reference's prediction for the same corrupted sample; None without a
    reference."""
    map_pearson: float | None
    """Mean correlation with the reference's map of the same corrupted sample; None without maps or a reference."""
    prediction_kept: float
    """Fraction of samples in [0, 1] with the file's own prediction for the clean sample."""
    map_kept: float | None
    """Mean correlation with the file's own map of the clean sample, for the same class."""
    intervals: Mapping[str, Interval | None]
    """95% intervals by field name."""


def robustness(
    origin: TorchModel | Model,
    files: Mapping[str, Model],
    samples: Sample,
    targets: Targets | None,
    corruptions: Mapping[str, Corruption],
    task: TaskMetrics,
    progress: Callable[[int], None] = lambda _: None,
) -> tuple[Robustness, ...]:
    """Compare model files with their reference, and with their own clean results, on corrupted samples.

    All maps of a sample explain the reference's prediction for the clean sample.

    Args:
        origin: the PyTorch student, or the fp32 file, which then has no reference.
        files: model files by name.
        samples: preprocessed samples `[N, …]`.
        targets: int64 `[N]`, the ground truth; None for unlabeled samples.
        corruptions: corruptions by name, see `ExportModality.corruptions`.
        task: metrics of the models' task.
        progress: called with the number of corruptions done.
    """
    classes = predict(origin, samples).explained_class
    clean = {role: predict(model, samples, classes) for role, model in files.items()}
    rows = []
    for number, (name, corrupt) in enumerate(corruptions.items()):
        corrupted = np.stack([corrupt(sample, index) for index, sample in enumerate(samples)])
        predictions = predict(origin, corrupted, classes)
        for role, model in files.items():
            mine, against = (
                (predictions, None) if model is origin else (predict(model, corrupted, classes), predictions)
            )
            rows.append(_row(name, role, against, mine, clean[role], targets, task))
        progress(number + 1)
    return tuple(rows)


def _row(
    name: str,
    role: str,
    reference: Predictions | None,
    predictions: Predictions,
    clean: Predictions,
    targets: Targets | None,
    task: TaskMetrics,
) -> Robustness:
    scores = {
        "accuracy": None if targets is None else task.correct(predictions.logits, targets),
        "agreement": None if reference is None else task.agreement(reference.logits, predictions.logits),
        "map_pearson": None if reference is None else pair_pearson(reference, predictions),
        "prediction_kept": task.agreement(clean.logits, predictions.logits),
        "map_kept": pair_pearson(clean, predictions),
    }
    figures = {key: None if some is None else mean(some) for key, some in scores.items()}
    correlations = {"map_pearson", "map_kept"}
    intervals = {
        key: mean_interval(some, CORRELATION if key in correlations else task.bounds if key == "accuracy" else SHARE)
        for key, some in scores.items()
        if some is not None
    }
    return Robustness(name, role, **figures, intervals=intervals)  # type: ignore[arg-type]
