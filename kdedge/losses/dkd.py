"""Soft labels in two parts: how sure the teacher is of the right class, and how it ranks the others."""

import torch
from torch import Tensor
from torch.nn import functional as F

from kdedge.losses.loss_inputs import Lesson

__all__ = ["decoupled_soft_labels"]


def decoupled_soft_labels(lesson: Lesson, *, others: float = 8.0) -> Tensor:
    """`T² · [KL(b_T || b_S) + β KL(p̂_T || p̂_S)]`, summed over classes and mean over the batch.

    `b = [p_y, 1 - p_y]` is the softened probability of the right class (of mixed labels the larger), `p̂` the
    distribution over the others.

    Shapes: logits of both and targets `[N, K]`.

    Source: Zhao et al., Decoupled Knowledge Distillation, CVPR 2022, eq. 7 with α = 1. Their code pushes the right
    class out of `p̂` by subtracting 1000 from its logit, the paper leaves it out: this follows the paper. Their warm-up
    of this term over 20 epochs is left to the warm-up of the learning rate.

    Default weight: 1, the authors' α, beside hard labels of 1.

    Args:
        lesson: the batch.
        others: β, by default 8, as the authors take for CIFAR-100 in general; 2 to 8 by pair, and 0.5 to 2 for ImageNet
            at T = 1.
    """
    temperature = lesson.temperature
    student, teacher = lesson.student.logits / temperature, lesson.taught.logits / temperature
    right = F.one_hot(lesson.targets.argmax(dim=1), student.shape[1]).bool()
    confidence = _kl(_binary(student, right), _binary(teacher, right))
    ranking = _kl(_without(student, right), _without(teacher, right))
    return (confidence + others * ranking) * temperature**2


def _binary(logits: Tensor, right: Tensor) -> Tensor:
    """Log-probabilities `[N, 2]` of the right class and of all others together."""
    log_p = F.log_softmax(logits, dim=1)
    of_right = (log_p * right).sum(dim=1)
    of_others = log_p.masked_fill(right, -torch.inf).logsumexp(dim=1)
    return torch.stack([of_right, of_others], dim=1)


def _without(logits: Tensor, right: Tensor) -> Tensor:
    """Log-probabilities `[N, K]` of the other classes among themselves; 0 for the right one, which drops out."""
    return F.log_softmax(logits.masked_fill(right, -torch.inf), dim=1).masked_fill(right, 0.0)


def _kl(student: Tensor, teacher: Tensor) -> Tensor:
    return F.kl_div(student, teacher, reduction="none", log_target=True).sum(dim=1).mean()
