"""Every class by itself: a good mean may hide one that was lost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kdedge_export.candidates import Role, origin
from kdedge_export.metrics import agreement
from kdedge_export.metrics.confidence import CORRELATION, SHARE, Interval, mean_interval
from kdedge_export.metrics.torch_predictions import Predictions
from kdedge_runtime.util.arrays import Integers

__all__ = ["ClassRow", "class_rows"]


@dataclass(frozen=True)
class ClassRow:
    """One class and what each model makes of it."""

    label: str
    n: int
    """Images of the class."""
    top1: Mapping[Role, float]
    """Share of right answers in [0, 1]; empty without labels."""
    agreement: Mapping[Role, float]
    """Share of images in [0, 1] with the answer of the model's reference."""
    map_pearson: Mapping[Role, float]
    """Mean correlation of the maps with the reference's; NaN where all are constant."""
    intervals: Mapping[str, Mapping[Role, Interval | None]]
    """Of the three, by their name."""


def class_rows(
    predictions: Mapping[Role, Predictions],
    pairs: Mapping[Role, tuple[Predictions, Predictions]],
    pearson: Mapping[Role, NDArray[np.float64]],
    targets: Integers | None,
    labels: Sequence[str],
    shipped: Role,
) -> tuple[ClassRow, ...]:
    """A row for each class that has images, worst first: by the accuracy of the file that ships, then by its maps.

    Args:
        predictions: of every model.
        pairs: reference and candidate, by candidate.
        pearson: of the candidates' maps, `[N]`.
        targets: int64 `[N]`, the right classes; None takes the origin's answers as the classes.
        labels: class names.
        shipped: the file that ships.
    """
    classes = agreement.top1(predictions[origin(predictions)].logits) if targets is None else targets
    right = {} if targets is None else {role: agreement.top1(p.logits) == targets for role, p in predictions.items()}
    agrees = {role: agreement.agrees(a.logits, b.logits) for role, (a, b) in pairs.items()}
    scores: dict[str, Mapping[Role, NDArray[np.float64]]] = {
        "top1": {role: hits.astype(np.float64) for role, hits in right.items()},
        "agreement": agrees,
        "map_pearson": pearson,
    }
    rows = []
    for number in np.unique(classes[classes >= 0]):
        members = np.flatnonzero(classes == number)
        figures = {
            key: {role: agreement.mean(some[members]) for role, some in by_role.items()}
            for key, by_role in scores.items()
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
        top1, agreement = row.top1.get(shipped, 0.0), row.agreement.get(shipped, 0.0)
        return top1, agreement, float(np.nan_to_num(row.map_pearson.get(shipped, 0.0)))

    return tuple(sorted(rows, key=merit))
