"""Logit standardization for knowledge distillation (Sun et al., CVPR 2024)."""

import torch
from torch import Tensor

from kdedge.losses.kd import softened_kl
from kdedge.losses.loss_inputs import LossInputs
from kdedge.losses.loss_term import LossTerm

__all__ = ["TERM", "logit_standardization_loss"]


def logit_standardization_loss(inputs: LossInputs, *, base_temperature: float = 2.0) -> Tensor:
    """Compute `τ² · KL(p(Z(z_T) / τ) || p(Z(z_S) / τ))` with `Z(z) = (z - mean z) / std z` over the classes.

    Shapes: logits of both `[N, K]`.
    Source: Sun et al., Logit Standardization in Knowledge Distillation, CVPR 2024, eq. 9 to 11. The code uses the
    unbiased standard deviation; this follows the code.
    Default weight: 9, as the authors use with cross-entropy of weight 0.1.

    Args:
        inputs: loss inputs of the batch.
        base_temperature: temperature τ, default 2 as in the paper. Standardized logits have unit variance, so the run's
            temperature would be too high.
    """
    student, teacher = _standardized(inputs.student.logits), _standardized(inputs.teacher_output.logits)
    return softened_kl(student, teacher, base_temperature)


def _standardized(logits: Tensor) -> Tensor:
    spread, mean = torch.std_mean(logits, dim=1, keepdim=True)
    return (logits - mean) / (1e-7 + spread)


TERM = LossTerm(logit_standardization_loss, 9.0)
"""Term `ls` of `--loss`."""
