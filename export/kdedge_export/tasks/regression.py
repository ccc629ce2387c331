"""Regression: squared errors relative to the variance of the ground truth."""

import numpy as np

from kdedge_export.metrics.scores import Scores
from kdedge_export.metrics.task_metrics import TaskMetrics, TaskWording
from kdedge_runtime.util.arrays import Floats, Targets

__all__ = ["REGRESSION", "RegressionMetrics"]

_MIN_VARIANCE = 1e-30
_ROUNDING = 1e-10
_LARGEST = 1e6
"""Relative squared error of outputs that are not finite."""


class RegressionMetrics(TaskMetrics):
    """Accuracy is R², the explained part of the variance. Its scores are not bounded below."""

    wording = TaskWording(
        accuracy="R²",
        is_share=False,
        agreement="agreement",
        divergence="squared difference",
        divergence_heading="squared diff.",
        divergence_meaning="half the mean squared difference to the reference’s prediction, relative to its variance",
        outputs="output",
        explained="output",
    )
    bounds = None

    def correct(self, logits: Floats, values: Targets) -> Scores:
        """Return `1 - (y - t)² / var(t)` of each sample, whose mean is R²."""
        return 1 - _relative(logits, values.reshape(len(values), -1).astype(np.float64))

    def constant_correct(self, values: Targets, outputs: int) -> Scores:
        """Return 0 for each sample, since R² is relative to the mean of the samples."""
        return np.zeros(len(values))

    def agreement(self, reference: Floats, candidate: Floats) -> Scores:
        """Return `1 - (y - y')² / var(y)` of two models, at least 0: the part of the variance that they share.

        Differences of less than 1e-5 standard deviations are rounding, and agree.
        """
        apart = _relative(candidate, reference.astype(np.float64))
        return np.where(apart < _ROUNDING, 1.0, np.maximum(1 - apart, 0.0))

    def divergence(self, reference: Floats, candidate: Floats) -> Scores:
        """Return half the squared difference of two models relative to the variance of the first.

        It is the divergence of normal distributions with that variance.
        """
        return 0.5 * _relative(candidate, reference.astype(np.float64))


def _relative(logits: Floats, values: Scores) -> Scores:
    """Compute squared differences relative to the variance of `values`, or to the square of a single value, `[N]`."""
    variance = values.var(axis=0) if len(values) > 1 else values[0] ** 2
    spread = np.maximum(variance, _MIN_VARIANCE)
    with np.errstate(invalid="ignore", over="ignore"):
        found = ((logits.astype(np.float64) - values) ** 2 / spread).mean(axis=1)
    return np.asarray(np.minimum(np.nan_to_num(found, nan=_LARGEST, posinf=_LARGEST), _LARGEST))


REGRESSION = RegressionMetrics()
