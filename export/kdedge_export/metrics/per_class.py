"""Per-class results, since a good mean may hide a class that was lost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kdedge_export.metrics import agreement
from kdedge_export.metrics.confidence import CORRELATION, SHARE, Interval, mean_interval
from kdedge_export.metrics.scores import mean
from kdedge_export.metrics.torch_predictions import Predictions
from kdedge_runtime.util.arrays import Targets

__all__ = ["ClassRow", "class_rows"]


@dataclass(frozen=True)
class ClassRow:
    """Results of all models for one class."""

    label: str
    n: int
    """Number of samples of the class."""
    accuracy: Mapping[str, float]
    """Accuracy in [0, 1] by role; empty without labels."""
    agreement: Mapping[str, float]
    """Fraction of samples in [0, 1] with the reference's prediction, by role."""
    map_pearson: Mapping[str, float]
    """Mean map correlation with the reference by role; NaN if all maps are constant."""
    intervals: Mapping[str, Mapping[str, Interval | None]]
    """95% intervals by field name and role."""


def class_rows(
    predictions: Mapping[str, Predictions],
    pairs: Mapping[str, tuple[Predictions, Predictions]],
    pearson: Mapping[str, NDArray[np.float64]],
    targets: Targets | None,
    labels: Sequence[str],
    *,
    origin: str,
    shipped: str,
) -> tuple[ClassRow, ...]:
    """Return one row per class with samples, worst first: by the deployed file's accuracy, then by its maps.

    Args:
        predictions: predictions of every model.
        pairs: reference and candidate predictions, by candidate.
        pearson: map correlations of the candidates, `[N]`.
        targets: int64 `[N]`, the target classes; None uses the predictions of `origin`.
        labels: class names.
        origin: name of the model whose predictions all maps explain.
        shipped: name of the deployed file.
    """
    classes = agreement.top1(predictions[origin].logits) if targets is None else targets
    right = {} if targets is None else {role: agreement.top1(p.logits) == targets for role, p in predictions.items()}
    agrees = {role: agreement.agrees(a.logits, b.logits) for role, (a, b) in pairs.items()}
    scores: dict[str, Mapping[str, NDArray[np.float64]]] = {
        "accuracy": {role: hits.astype(np.float64) for role, hits in right.items()},
        "agreement": agrees,
        "map_pearson": pearson,
    }
    rows = []
    for number in np.unique(classes[classes >= 0]):
        members = np.flatnonzero(classes == number)
        figures = {
            key: {role: mean(some[members]) for role, some in by_role.items()} for key, by_role in scores.items()
        }
        intervals = {
            key: {
                role: mean_interval(some[members], CORRELATION if key == "map_pearson" else SHARE)
                for role, some in by_role.items()
            }
            for key, by_role in scores.items()
        }
        rows.append(ClassRow(labels[number], len(members), **figures, intervals=intervals))

    def merit(row: ClassRow) -> tuple[float, float, float]:
        accuracy, agreement = row.accuracy.get(shipped, 0.0), row.agreement.get(shipped, 0.0)
        return accuracy, agreement, float(np.nan_to_num(row.map_pearson.get(shipped, 0.0)))

    return tuple(sorted(rows, key=merit))
