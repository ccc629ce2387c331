"""Cross-entropy with the ground-truth labels."""

from torch import Tensor
from torch.nn import functional as F

from kdedge.losses.loss_inputs import LossInputs
from kdedge.losses.loss_term import LossTerm

__all__ = ["TERM", "cross_entropy_loss"]


def cross_entropy_loss(inputs: LossInputs) -> Tensor:
    """Compute `-sum_c y_c log p_S(c)`, mean over labeled samples.

    Unlabeled samples have targets of zeros and add nothing. The sum is divided by the number of labeled samples
    expected in a batch, so that every label has the same weight in an epoch.

    Shapes: student logits and targets `[N, K]`; the target of a mixed sample is the mixture of both labels.
    Source: negative log-likelihood of the labels; for mixed labels as in mixup (Zhang et al., ICLR 2018).
    Default weight: 1.
    """
    return F.cross_entropy(inputs.student.logits, inputs.targets) / inputs.labeled_fraction


TERM = LossTerm(cross_entropy_loss, 1.0, needs_teacher=False)
"""Term `ce` of `--loss`."""
