"""Interface of a task in metrics: accuracy, and the agreement of two models' logits.

It is not in `kdedge_export.tasks`, since metrics take a task as an argument and the tasks there are made of metrics.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from kdedge_export.html.text import points, quantity
from kdedge_export.metrics.scores import Scores
from kdedge_runtime.util.arrays import Floats, Integers

__all__ = ["TaskMetrics", "TaskWording"]


@dataclass(frozen=True)
class TaskWording:
    """Names of a task's metrics in reports, and the form of its accuracy; those of classes by default."""

    accuracy: str = "top-1"
    """Name of the mean of `TaskMetrics.correct`."""
    is_share: bool = True
    """True if the accuracy is a fraction of samples, in percent; False for a coefficient such as R²."""
    agreement: str = "top-1 agreement"
    divergence: str = "KL divergence"
    divergence_heading: str = "KL"
    divergence_meaning: str = "mean KL divergence of the softmax from the reference’s, in nats"
    outputs: str = "logits"
    """Name of the outputs of the network."""
    explained: str = "top-1 class"
    """Name of what a map explains if nothing else is requested."""

    @property
    def accuracy_phrase(self) -> str:
        """Name of the accuracy in a sentence."""
        return f"{self.accuracy} accuracy" if self.is_share else self.accuracy

    @property
    def unit(self) -> str:
        """Unit of an accuracy; empty for a coefficient."""
        return "%" if self.is_share else ""

    def number(self, value: float, digits: int = 1) -> str:
        """Format an accuracy without its unit: digits of percent, or three decimals of a coefficient."""
        return quantity(100 * value, digits) if self.is_share else quantity(value, 3)

    def shown(self, value: float, digits: int = 1) -> str:
        """Format an accuracy with its unit."""
        return self.number(value, digits) + self.unit

    def change(self, difference: float) -> str:
        """Format a signed difference of accuracies: percentage points, or three decimals of a coefficient."""
        if self.is_share:
            return points(100 * difference)
        return f"{difference:+.3f}".replace("-", "−") if round(difference, 3) else "0.000"


class TaskMetrics(ABC):
    """Metrics of a task. Logits are float32 `[N, K]`; the ground truth is int64 `[N]`, as in the dataset."""

    wording = TaskWording()
    """Names of the metrics in reports."""
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

    def positive_score(self, logits: Floats) -> Scores | None:
        """Return a score of the second of two classes, `[N]`, for the area under the ROC curve; None by default."""
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
