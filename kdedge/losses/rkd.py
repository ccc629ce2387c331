"""RKD: relational knowledge distillation of distances and angles between the samples of a batch (Park et al., 2019)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from kdedge.losses.loss_inputs import LossInputs
from kdedge.losses.loss_term import LossTerm

__all__ = ["TERM", "rkd_loss"]

_ANGLE_WEIGHT = 2.0
_MAX_ANGLED = 64
_SHORTEST = 1e-3
"""Minimum distance; the gradient of a shorter one, as between copies, is undefined, and its rounding error larger."""


def rkd_loss(inputs: LossInputs) -> Tensor:
    """Compute `L_D + 2 L_A`: Huber losses of the distances and of the angles between embeddings of length 1.

    Distances are divided by their mean in the batch. Angles are cosines at the second of every three samples. There are
    cubically many, so that they are those of the first 64 samples of the batch.

    Shapes: embeddings or pooled features of student and teacher `[N, D, 1, 1]`, of the batches of all processes; D may
    differ.
    Source: Park et al., Relational Knowledge Distillation, CVPR 2019, eq. 4 to 9; the weights 1 and 2 are theirs.
    Default weight: 20, as for `cosine`.
    """
    (student,), (teacher,) = inputs.student.features, inputs.teacher_output.features
    ours, theirs = (F.normalize(each.flatten(1), dim=1) for each in (student, teacher))
    distance = F.smooth_l1_loss(_relative_distances(ours), _relative_distances(theirs))
    angle = F.smooth_l1_loss(_angles(ours[:_MAX_ANGLED]), _angles(theirs[:_MAX_ANGLED]))
    return distance + _ANGLE_WEIGHT * angle


def _relative_distances(vectors: Tensor) -> Tensor:
    """Return the distances of all pairs, divided by the mean over pairs of different samples, `[N, N]`."""
    squared = 2 - 2 * vectors @ vectors.T  # they have length 1
    distances = squared.clamp_min(_SHORTEST**2).sqrt()
    apart = ~torch.eye(len(vectors), dtype=torch.bool, device=vectors.device)
    count = max(1, len(vectors) * (len(vectors) - 1))
    distances = distances * apart
    return distances / (distances.sum() / count).clamp_min(_SHORTEST)


def _angles(vectors: Tensor) -> Tensor:
    """Return the cosine of the angle at sample j between samples i and k, `[N (j), N (i), N (k)]`."""
    directions = vectors[None, :] - vectors[:, None]
    directions = directions / directions.square().sum(dim=2, keepdim=True).clamp_min(_SHORTEST**2).sqrt()
    return directions @ directions.transpose(1, 2)


TERM = LossTerm(rkd_loss, 20.0, features=True, pooled=True, whole_batch=True)
"""Term `rkd` of `--loss`."""
