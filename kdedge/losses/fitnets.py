"""FitNets: hints from intermediate features through a learned projection (Romero et al., ICLR 2015)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from kdedge.losses.loss_inputs import LossInputs
from kdedge.losses.loss_term import LossTerm
from kdedge.losses.map_distance import match_spatial_size

__all__ = ["TERM", "fitnet_loss"]


def fitnet_loss(inputs: LossInputs) -> Tensor:
    """Compute `mean (P(F_S) - F_T)²`, mean over the compared layers; `P` is a 1×1 convolution trained with the student.

    Shapes: projected features of each compared layer `[N, C_T, h, w]`, the teacher's `[N, C_T, h', w']`; the larger is
    average-pooled.
    Source: Romero et al., FitNets: Hints for Thin Deep Nets, ICLR 2015, eq. 3. They train with the hint first and with
    labels afterwards. Here both are trained jointly, as in later comparisons.
    Default weight: measured; those comparisons use 100.
    """
    pairs = zip(inputs.projected, inputs.teacher_output.features, strict=True)
    return torch.stack([F.mse_loss(*match_spatial_size(*pair)) for pair in pairs]).mean()


TERM = LossTerm(fitnet_loss, None, features=True, projects=True)
"""Term `hint` of `--loss`."""
