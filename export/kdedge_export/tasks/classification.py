"""Classification into exactly one of K classes."""

import numpy as np

from kdedge_export.metrics import agreement
from kdedge_export.metrics.scores import Scores
from kdedge_export.metrics.task_metrics import TaskMetrics
from kdedge_runtime.util.arrays import Floats, Integers

__all__ = ["CLASSIFICATION", "ClassificationMetrics"]


class ClassificationMetrics(TaskMetrics):
    """Accuracy and agreement of top-1 classes; divergence of the softmax at temperature 1."""

    has_probabilities = True

    def correct(self, logits: Floats, values: Integers) -> Scores:
        """Return 1 if the top-1 class is the ground truth, else 0."""
        return agreement.is_right(logits, values)

    def constant_correct(self, values: Integers, outputs: int) -> Scores:
        """Return 1 for samples of the most frequent class, else 0."""
        right: Scores = (values == np.bincount(values, minlength=outputs).argmax()).astype(np.float64)
        return right

    def positive_score(self, logits: Floats) -> Scores | None:
        """Return the difference of the two logits; None for another number of classes."""
        if logits.shape[1] != 2:
            return None
        difference: Scores = logits[:, 1].astype(np.float64) - logits[:, 0]
        return np.nan_to_num(difference)

    def agreement(self, reference: Floats, candidate: Floats) -> Scores:
        """Return 1 if the top-1 classes are equal, else 0."""
        return agreement.agrees(reference, candidate)

    def centered(self, logits: Floats) -> Scores:
        """Subtract the mean over classes, which the softmax ignores."""
        return agreement.centered(logits)

    def divergence(self, reference: Floats, candidate: Floats) -> Scores:
        """Return the Kullback-Leibler divergence of the softmax."""
        return agreement.kl_divergence(reference, candidate)


CLASSIFICATION = ClassificationMetrics()
