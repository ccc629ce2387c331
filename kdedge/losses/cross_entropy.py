"""Hard labels."""

from torch import Tensor
from torch.nn import functional as F

from kdedge.losses.loss_inputs import Lesson

__all__ = ["cross_entropy"]


def cross_entropy(lesson: Lesson) -> Tensor:
    """`-sum_c y_c log p_S(c)`, mean over the batch.

    Shapes: student's logits and targets `[N, K]`; a mixed picture's target is its mixture of both labels.

    Source: the log-likelihood of the labels; of mixed ones as in mixup (Zhang et al., ICLR 2018).

    Default weight: 1.
    """
    return F.cross_entropy(lesson.student.logits, lesson.targets)
