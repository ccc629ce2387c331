"""Hard labels."""

from torch import Tensor
from torch.nn import functional as F

from kdedge.distill.losses.lesson import Lesson

__all__ = ["cross_entropy"]


def cross_entropy(lesson: Lesson) -> Tensor:
    """`-sum_c y_c log p_S(c)`, mean over the batch."""
    return F.cross_entropy(lesson.student.logits, lesson.targets)
