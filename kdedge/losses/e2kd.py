"""e²KD: cosine similarity of rectified maps of the teacher's top class (Parchami-Araghi et al., ECCV 2024)."""

from torch import Tensor
from torch.nn import functional as F

from kdedge.losses.loss_inputs import LossInputs
from kdedge.losses.loss_term import LossTerm
from kdedge.losses.map_distance import match_spatial_size

__all__ = ["TERM", "e2kd_loss"]


def e2kd_loss(inputs: LossInputs) -> Tensor:
    """Compute `1 - cos(relu M_S, relu M_T)` of the maps of the teacher's top class, mean over the batch.

    A student's map without positive values has loss 1 and no gradient; `map` does not have this problem.

    Shapes: maps `[N, k, h, w]` and `[N, k, h', w']`, the teacher's top class first; the larger is average-pooled.
    Source: Parchami-Araghi et al., Good Teachers Explain (e²KD), ECCV 2024, eq. 3 with Grad-CAM. The code upsamples the
    maps to the image size first, the equation compares them directly; this follows the paper. Their loss adds soft
    labels of weight 1 and no cross-entropy: `kd:1,e2:5`.
    Default weight: 5.
    """
    student, teacher = inputs.student.maps, inputs.teacher_output.maps
    assert student is not None and teacher is not None, "validated before training"
    student, teacher = match_spatial_size(student[:, 0].relu(), teacher[:, 0].relu())
    return (1 - F.cosine_similarity(student.flatten(1), teacher.flatten(1), eps=1e-8)).mean()


TERM = LossTerm(e2kd_loss, 5.0, map_classes=1)
"""Term `e2` of `--loss`."""
