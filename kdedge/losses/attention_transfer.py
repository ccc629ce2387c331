"""Attention transfer on spatial activation maps (Zagoruyko and Komodakis, ICLR 2017)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from kdedge.losses.loss_inputs import LossInputs
from kdedge.losses.loss_term import LossTerm
from kdedge.losses.map_distance import match_spatial_size

__all__ = ["TERM", "attention_transfer_loss"]


def attention_transfer_loss(inputs: LossInputs) -> Tensor:
    """Compute `sum_l mean (Q_S^l - Q_T^l)²`, where `Q` is the L2-normalized mean square over channels.

    Shapes: features of each compared layer `[N, C_S, h, w]` and `[N, C_T, h', w']`; the larger is average-pooled.
    Source: Zagoruyko and Komodakis, Paying More Attention to Attention, ICLR 2017. The paper (eq. 2) uses the L2 norm
    of the difference, the code its mean square; this follows the code, as does the published weight of 1000.
    Default weight: measured.
    """
    distances = []
    for pair in zip(inputs.student.features, inputs.teacher_output.features, strict=True):
        student, teacher = match_spatial_size(*pair)
        distances.append(F.mse_loss(_attention(student), _attention(teacher)))
    return torch.stack(distances).sum()


def _attention(features: Tensor) -> Tensor:
    return F.normalize(features.square().mean(dim=1).flatten(1), dim=1)


TERM = LossTerm(attention_transfer_loss, None, features=True)
"""Term `at` of `--loss`."""
