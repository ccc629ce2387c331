"""Cosine loss: direction of the student's embedding against the teacher's."""

from torch import Tensor
from torch.nn import functional as F

from kdedge.losses.loss_inputs import LossInputs
from kdedge.losses.loss_term import LossTerm

__all__ = ["TERM", "cosine_loss"]


def cosine_loss(inputs: LossInputs) -> Tensor:
    """Compute `1 - cos(e_S, e_T)`, mean over the batch, in [0, 2].

    Shapes: embeddings of both `[N, D, 1, 1]`.
    Source: the embedding loss of Duong et al., ShrinkTeaNet: Million-scale Lightweight Face Recognition via Shrinking
    Teacher-Student Networks, 2019, eq. 5, which compares directions and ignores lengths.
    Default weight: 20, as for maps, which are compared by a correlation.
    """
    (student,), (teacher,) = inputs.student.features, inputs.teacher_output.features
    return 1 - F.cosine_similarity(student.flatten(1), teacher.flatten(1), dim=1).mean()


TERM = LossTerm(cosine_loss, 20.0, features=True, pooled=True, same_size=True)
"""Term `cosine` of `--loss`."""
