"""Embedding: the prediction is the prototype of the most similar class."""

from kdedge_export.metrics import agreement
from kdedge_export.metrics.scores import Scores
from kdedge_export.metrics.task_metrics import TaskMetrics
from kdedge_runtime.util.arrays import Floats, Integers

__all__ = ["EMBEDDING", "SOFTMAX_TEMPERATURE", "EmbeddingMetrics"]

SOFTMAX_TEMPERATURE = 0.05
"""Temperature of the softmax of similarities. It spreads them over about the range of a classifier's logits."""


class EmbeddingMetrics(TaskMetrics):
    """Accuracy and agreement of the nearest prototypes. Logits are cosine similarities in [-1, 1], not centered."""

    def correct(self, logits: Floats, values: Integers) -> Scores:
        """Return 1 if the nearest prototype is that of the ground truth, else 0."""
        return agreement.is_right(logits, values)

    def agreement(self, reference: Floats, candidate: Floats) -> Scores:
        """Return 1 if the nearest prototypes are equal, else 0."""
        return agreement.agrees(reference, candidate)

    def divergence(self, reference: Floats, candidate: Floats) -> Scores:
        """Return the Kullback-Leibler divergence of the softmax of similarities at temperature 0.05.

        At temperature 1 the softmax of cosines is nearly uniform (Wang et al., NormFace, ACM MM 2017), so that no error
        exceeds a bound in nats. Half the squared deviation of similarities, divided by the temperature, approximates
        it: 0.1 nats are deviations of 0.022, and 1e-4 nats of 0.0007.
        """
        return agreement.kl_divergence(*(some / SOFTMAX_TEMPERATURE for some in (reference, candidate)))


EMBEDDING = EmbeddingMetrics()
