"""Interface of a task in metrics: accuracy, and the agreement of two models' logits.

It is not in `kdedge_export.tasks`, since metrics take a task as an argument and the tasks there are made of metrics.
"""

from abc import ABC, abstractmethod

import numpy as np

from kdedge_export.metrics.scores import Scores
from kdedge_runtime.util.arrays import Floats, Integers

__all__ = ["TaskMetrics"]


class TaskMetrics(ABC):
    """Metrics of a task. Logits are float32 `[N, K]`; the ground truth is int64 `[N]`, as in the dataset."""

    accuracy_name = "top-1"
    """Name of the mean of `correct`."""
    bounds: tuple[float, float] | None = (0.0, 1.0)
    """Lowest and highest value of `correct`, for its interval; None if it has none, which uses a bootstrap."""

    @property
    def has_probabilities(self) -> bool:
        """True if the softmax of logits gives class probabilities, which allows temperature scaling and calibration."""
        return False

    @abstractmethod
    def correct(self, logits: Floats, values: Integers) -> Scores:
        """Return the correctness of each prediction within `bounds`; the lowest for logits that are not finite."""

    def constant_correct(self, values: Integers, outputs: int) -> Scores | None:
        """Return the correctness of the constant prediction that is best on these samples; None by default.

        Args:
            values: ground truth int64 `[N]`.
            outputs: number of outputs, K.
        """
        return None

    @abstractmethod
    def agreement(self, reference: Floats, candidate: Floats) -> Scores:
        """Return the agreement of two predictions for each sample in [0, 1]; 0 if either is not finite."""

    def centered(self, logits: Floats) -> Scores:
        """Remove the part of logits that predictions ignore, float64 `[N, K]`; nothing by default."""
        return logits.astype(np.float64)

    @abstractmethod
    def divergence(self, reference: Floats, candidate: Floats) -> Scores:
        """Return the divergence of the candidate's distribution from the reference's, in nats, ≥ 0 up to rounding."""
