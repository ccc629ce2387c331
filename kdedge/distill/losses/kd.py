"""Soft labels."""

from torch import Tensor
from torch.nn import functional as F

from kdedge.distill.lesson import Lesson

__all__ = ["soft_labels"]


def soft_labels(lesson: Lesson) -> Tensor:
    """`T² · KL(p_T(z / T) || p_S(z / T))`, summed over classes and mean over the batch.

    The factor T² keeps the gradient's size independent of the temperature.

    Source: Hinton et al., Distilling the Knowledge in a Neural Network, 2015, §2.
    """
    temperature = lesson.temperature
    student = F.log_softmax(lesson.student.logits / temperature, dim=1)
    teacher = F.log_softmax(lesson.taught.logits / temperature, dim=1)
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2
