"""Squared error of a regression, relative to the variance of the training targets."""

import math

from torch import Tensor

from kdedge.losses.loss_inputs import LossInputs
from kdedge.losses.loss_term import LossTerm

__all__ = ["TERM", "relative_squared_error", "relative_squared_error_loss"]


def relative_squared_error_loss(inputs: LossInputs) -> Tensor:
    """Compute `mean (y - t)² / var`, which is `1 - R²` over the training samples and has no unit.

    `var` is the variance of the targets of all training samples, not of the batch, whose targets may all be equal.

    Shapes: outputs and targets `[N, 1]`.
    Source: the residual of the coefficient of determination.
    Default weight: 1.
    """
    return relative_squared_error(inputs.student.logits, inputs.targets, inputs.target_variance)


def relative_squared_error(values: Tensor, wanted: Tensor, variance: float) -> Tensor:
    """Compute the mean squared difference of values `[N, K]`, relative to a variance."""
    return ((values - wanted) / math.sqrt(variance)).square().mean()


TERM = LossTerm(relative_squared_error_loss, 1.0, needs_teacher=False, of_values=True)
"""Term `rse` of `--loss`."""
