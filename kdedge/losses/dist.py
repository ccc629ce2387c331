"""DIST: distillation by inter-class and intra-class correlations (Huang et al., NeurIPS 2022)."""

from torch import Tensor

from kdedge.losses.loss_inputs import LossInputs
from kdedge.losses.loss_term import LossTerm
from kdedge.losses.map_distance import pearson

__all__ = ["TERM", "dist_loss"]


def dist_loss(inputs: LossInputs) -> Tensor:
    """Compute `T² · [(1 - mean_i ρ(Y_S[i, :], Y_T[i, :])) + (1 - mean_c ρ(Y_S[:, c], Y_T[:, c]))]`.

    `Y` are softened probabilities and ρ is Pearson's correlation. The second part compares the samples of a batch with
    each other: use batches of 64 or more.

    Shapes: logits of both `[N, K]`, of the batches of all processes.
    Source: Huang et al., Knowledge Distillation from A Stronger Teacher, NeurIPS 2022, eq. 7 to 9 with β = γ. The code
    adds the factor T²; this follows the code.
    Default weight: 2, the authors' β and γ, with cross-entropy of weight 1.
    """
    student = (inputs.student.logits / inputs.temperature).softmax(dim=1)
    teacher = (inputs.teacher_output.logits / inputs.temperature).softmax(dim=1)
    between_classes = 1 - pearson(student, teacher).mean()
    between_samples = 1 - pearson(student.T, teacher.T).mean()
    return (between_classes + between_samples) * inputs.temperature**2


TERM = LossTerm(dist_loss, 2.0, uses_temperature=True, whole_batch=True)
"""Term `dist` of `--loss`."""
