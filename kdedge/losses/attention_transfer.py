"""Where the layers of both networks are active, whatever the class."""

import torch
from torch import Tensor
from torch.nn import functional as F

from kdedge.losses.loss_inputs import Lesson
from kdedge.losses.map_distance import at_common_size

__all__ = ["attention_transfer"]


def attention_transfer(lesson: Lesson) -> Tensor:
    """`sum_l mean (Q_S^l - Q_T^l)²`, `Q` the mean square over channels, flattened and divided by its L2 norm.

    Shapes: features of each compared layer `[N, C_S, h, w]` and `[N, C_T, h', w']`; the larger is averaged down.

    Source: Zagoruyko and Komodakis, Paying More Attention to Attention, ICLR 2017. Their paper (eq. 2) takes the L2
    norm of the difference, their code its mean square: this follows the code, as the published weight of 1000 does.

    Default weight: measured.
    """
    distances = []
    for pair in zip(lesson.student.features, lesson.taught.features, strict=True):
        student, teacher = at_common_size(*pair)
        distances.append(F.mse_loss(_attention(student), _attention(teacher)))
    return torch.stack(distances).sum()


def _attention(features: Tensor) -> Tensor:
    return F.normalize(features.square().mean(dim=1).flatten(1), dim=1)
