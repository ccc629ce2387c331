"""Squared difference of student and teacher in a regression, relative to the variance of the targets."""

from torch import Tensor

from kdedge.losses.loss_inputs import LossInputs
from kdedge.losses.loss_term import LossTerm
from kdedge.losses.relative_squared_error import relative_squared_error

__all__ = ["TERM", "relative_squared_distillation_loss"]


def relative_squared_distillation_loss(inputs: LossInputs) -> Tensor:
    """Compute `mean (y_S - y_T)² / var` of student and teacher, with the variance of the training targets.

    Shapes: outputs of both `[N, 1]`.
    Source: as `rse`, with the outputs of the teacher as targets.
    Default weight: 0.9.
    """
    return relative_squared_error(inputs.student.logits, inputs.teacher_output.logits, inputs.target_variance)


TERM = LossTerm(relative_squared_distillation_loss, 0.9, of_values=True)
"""Term `rsekd` of `--loss`."""
