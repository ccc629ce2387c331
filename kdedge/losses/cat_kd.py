"""Class attention transfer: squared error of the maps of all classes (Guo et al., CVPR 2023)."""

from torch import Tensor
from torch.nn import functional as F

from kdedge.losses.loss_inputs import LossInputs
from kdedge.losses.loss_term import ALL_CLASSES, LossTerm
from kdedge.losses.map_distance import match_spatial_size

__all__ = ["TERM", "cat_kd_loss"]


def cat_kd_loss(inputs: LossInputs, *, positions: int = 2) -> Tensor:
    """Compute `mean (N(A_r M_S) - N(A_r M_T))²` over samples, all classes and positions.

    `A_r` average-pools a map to `r × r`; `N` divides each class's map by its L2 norm.

    Shapes: maps of all classes `[N, K, h, w]` and `[N, K, h', w']`; the larger is average-pooled.
    Source: Guo et al., Class Attention Transfer Based Knowledge Distillation, CVPR 2023, eq. 4. The code omits N for
    models of the same family; this follows the code for different families. The authors do not combine it with soft
    labels.
    Default weight: measured; the authors use 0.5 to 600.

    Args:
        inputs: loss inputs of the batch.
        positions: map resolution r, default 2; the authors use 4 for ShuffleNet and ImageNet. Smaller maps are not
            pooled.
    """
    student, teacher = inputs.student.maps, inputs.teacher_output.maps
    assert student is not None and teacher is not None, "validated before training"
    student, teacher = match_spatial_size(student, teacher)
    return F.mse_loss(_unit(student, positions), _unit(teacher, positions))


def _unit(maps: Tensor, positions: int) -> Tensor:
    height, width = maps.shape[-2:]
    return F.normalize(F.adaptive_avg_pool2d(maps, (min(positions, height), min(positions, width))).flatten(2), dim=2)


TERM = LossTerm(cat_kd_loss, None, map_classes=ALL_CLASSES)
"""Term `cat` of `--loss`."""
