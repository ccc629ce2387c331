"""Knowledge distillation on softened logits (Hinton et al., 2015)."""

from torch import Tensor
from torch.nn import functional as F

from kdedge.losses.loss_inputs import LossInputs
from kdedge.losses.loss_term import LossTerm

__all__ = ["TERM", "kd_loss", "softened_kl"]


def kd_loss(inputs: LossInputs) -> Tensor:
    """Compute `T² · KL(p_T(z / T) || p_S(z / T))`, summed over classes and mean over the batch.

    The factor T² makes the gradient magnitude independent of the temperature.

    Shapes: logits of both `[N, K]`.
    Source: Hinton et al., Distilling the Knowledge in a Neural Network, 2015, §2.
    Default weight: 0.9, with cross-entropy of weight 0.1, at T = 4.
    """
    return softened_kl(inputs.student.logits, inputs.teacher_output.logits, inputs.temperature)


def softened_kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Compute `T² · KL(softmax(teacher / T) || softmax(student / T))` of logits `[N, K]`, mean over the batch."""
    student, teacher = F.log_softmax(student / temperature, dim=1), F.log_softmax(teacher / temperature, dim=1)
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2


TERM = LossTerm(kd_loss, 0.9, uses_temperature=True)
"""Term `kd` of `--loss`."""
