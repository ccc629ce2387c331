"""Have the features that the teacher has, up to a learned projection."""

import torch
from torch import Tensor
from torch.nn import functional as F

from kdedge.losses.loss_inputs import Lesson
from kdedge.losses.map_distance import at_common_size

__all__ = ["hints"]


def hints(lesson: Lesson) -> Tensor:
    """`mean (P(F_S) - F_T)²`, mean over the compared layers; `P` is a 1×1 convolution that learns with the student.

    Shapes: projected features of each compared layer `[N, C_T, h, w]`, the teacher's `[N, C_T, h', w']`; the larger is
    averaged down.

    Source: Romero et al., FitNets: Hints for Thin Deep Nets, ICLR 2015, eq. 3. They train towards the hint first and
    for the labels afterwards; here, as in the field's later comparisons, both are learned at once.

    Default weight: measured; those comparisons take 100.
    """
    pairs = zip(lesson.projected, lesson.taught.features, strict=True)
    return torch.stack([F.mse_loss(*at_common_size(*pair)) for pair in pairs]).mean()
