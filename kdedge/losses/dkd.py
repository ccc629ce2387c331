"""Decoupled knowledge distillation: target-class and non-target-class terms (Zhao et al., CVPR 2022)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from kdedge.losses.loss_inputs import LossInputs
from kdedge.losses.loss_term import LossTerm

__all__ = ["TERM", "dkd_loss"]


def dkd_loss(inputs: LossInputs, *, others: float = 8.0) -> Tensor:
    """Compute `T² · [KL(b_T || b_S) + β KL(p̂_T || p̂_S)]`, summed over classes and mean over the batch.

    `b = [p_y, 1 - p_y]` is the softened probability of the ground-truth class (the larger one for mixed labels, the
    teacher's top class for unlabeled samples), `p̂` the distribution over the other classes.

    Shapes: logits of both and targets `[N, K]`.
    Source: Zhao et al., Decoupled Knowledge Distillation, CVPR 2022, eq. 7 with α = 1. The code suppresses the
    ground-truth class in `p̂` by subtracting 1000 from its logit, the paper excludes it; this follows the paper. The
    20-epoch warmup of this term is replaced by the learning rate warmup.
    Default weight: 1, the authors' α, with cross-entropy of weight 1.

    Args:
        inputs: loss inputs of the batch.
        others: weight β of the non-target term, default 8, the authors' general choice for CIFAR-100; 2 to 8 depending
            on the pair, and 0.5 to 2 for ImageNet at T = 1.
    """
    temperature = inputs.temperature
    student, teacher = inputs.student.logits / temperature, inputs.teacher_output.logits / temperature
    known = torch.where(inputs.targets.any(dim=1), inputs.targets.argmax(dim=1), teacher.argmax(dim=1))
    right = F.one_hot(known, student.shape[1]).bool()
    confidence = _kl(_binary(student, right), _binary(teacher, right))
    ranking = _kl(_without(student, right), _without(teacher, right))
    return (confidence + others * ranking) * temperature**2


def _binary(logits: Tensor, right: Tensor) -> Tensor:
    """Return log-probabilities `[N, 2]` of the ground-truth class and of all other classes combined."""
    log_p = F.log_softmax(logits, dim=1)
    of_right = (log_p * right).sum(dim=1)
    of_others = log_p.masked_fill(right, -torch.inf).logsumexp(dim=1)
    return torch.stack([of_right, of_others], dim=1)


def _without(logits: Tensor, right: Tensor) -> Tensor:
    """Return log-probabilities `[N, K]` over the other classes; 0 for the ground-truth class, which has no effect."""
    return F.log_softmax(logits.masked_fill(right, -torch.inf), dim=1).masked_fill(right, 0.0)


def _kl(student: Tensor, teacher: Tensor) -> Tensor:
    return F.kl_div(student, teacher, reduction="none", log_target=True).sum(dim=1).mean()


TERM = LossTerm(dkd_loss, 1.0, uses_temperature=True)
"""Term `dkd` of `--loss`."""
