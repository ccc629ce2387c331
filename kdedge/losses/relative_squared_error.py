"""Squared errors of a regression, relative to the variance in the batch."""

from torch import Tensor

from kdedge.losses.loss_inputs import LossInputs

__all__ = ["relative_squared_distillation_loss", "relative_squared_error_loss"]

_LEAST = 1e-12


def relative_squared_error_loss(inputs: LossInputs) -> Tensor:
    """Compute `mean (y - t)² / var(t)`, which is `1 - R²` of the batch and has no unit.

    Shapes: outputs and targets `[N, 1]`.
    Default weight: 1.
    """
    return _relative(inputs.student.logits, inputs.targets)


def relative_squared_distillation_loss(inputs: LossInputs) -> Tensor:
    """Compute `mean (y_S - y_T)² / var(y_T)` of student and teacher.

    Shapes: outputs of both `[N, 1]`.
    Default weight: 0.9.
    """
    return _relative(inputs.student.logits, inputs.teacher_output.logits)


def _relative(values: Tensor, wanted: Tensor) -> Tensor:
    spread = wanted.var(dim=0, correction=0)
    scale = spread.clamp_min(_LEAST * wanted.square().mean(dim=0).clamp_min(_LEAST))
    return ((values - wanted).square() / scale).mean()
