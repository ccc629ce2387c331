"""Squared error of a regression, relative to the variance in the batch."""

from torch import Tensor

from kdedge.losses.loss_inputs import LossInputs

__all__ = ["relative_squared_error", "relative_squared_error_loss"]

_LEAST = 1e-12


def relative_squared_error_loss(inputs: LossInputs) -> Tensor:
    """Compute `mean (y - t)² / var(t)`, which is `1 - R²` of the batch and has no unit.

    Shapes: outputs and targets `[N, 1]`.
    Source: the residual of the coefficient of determination.
    Default weight: 1.
    """
    return relative_squared_error(inputs.student.logits, inputs.targets)


def relative_squared_error(values: Tensor, wanted: Tensor) -> Tensor:
    """Compute the mean squared difference relative to the variance of `wanted`, both `[N, K]`."""
    spread = wanted.var(dim=0, correction=0)
    scale = spread.clamp_min(_LEAST * wanted.square().mean(dim=0).clamp_min(_LEAST))
    return ((values - wanted).square() / scale).mean()
