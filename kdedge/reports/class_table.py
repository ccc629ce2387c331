"""Per-class accuracy of runs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kdedge.pipelines.disagreement import class_accuracy
from kdedge.pipelines.run_predictions import RunPredictions
from kdedge_export.metrics import agreement

__all__ = ["ClassRow", "class_rows"]


@dataclass(frozen=True)
class ClassRow:
    """Top-1 of every run on the samples of one class."""

    label: str
    samples: int
    """Number of samples of the class."""
    accuracy: tuple[float, ...]
    """Fraction of correct predictions of each run, in [0, 1]; the first run is the baseline."""

    @property
    def changes(self) -> tuple[float, ...]:
        """Difference of every other run to the baseline, in [-1, 1]."""
        return tuple(value - self.accuracy[0] for value in self.accuracy[1:])


def class_rows(predictions: Sequence[RunPredictions]) -> list[ClassRow]:
    """Return a row for all samples, then one per class with samples.

    Classes are sorted by the largest loss against the baseline, then by top-1, worst first.

    Args:
        predictions: predictions of the runs on the same samples; the first run is the baseline.
    """
    evaluated = predictions[0].samples
    count = len(evaluated.labels)
    samples = np.bincount(evaluated.targets, minlength=count)
    hits = [agreement.top1(one.predictions.logits) == one.right for one in predictions]
    accuracy = np.stack([class_accuracy(hit, evaluated.targets, count) for hit in hits])
    overall = tuple(agreement.top1_accuracy(one.predictions.logits, one.right) for one in predictions)
    order = np.lexsort((accuracy.mean(axis=0), (accuracy[1:] - accuracy[0]).min(axis=0, initial=np.inf)))
    return [
        ClassRow("all", int(samples.sum()), overall),
        *(
            ClassRow(evaluated.labels[index], int(samples[index]), tuple(map(float, accuracy[:, index])))
            for index in order
            if samples[index]
        ),
    ]
