"""All classes' maps by squared error."""

from torch import Tensor
from torch.nn import functional as F

from kdedge.losses.loss_inputs import Lesson
from kdedge.losses.map_distance import at_common_size

__all__ = ["class_attention_transfer"]


def class_attention_transfer(lesson: Lesson, *, cells: int = 2) -> Tensor:
    """`mean (N(A_r M_S) - N(A_r M_T))²` over images, all classes and cells.

    `A_r` averages a map to `r × r` cells, `N` divides each class's map by its L2 norm.

    Shapes: maps of all classes of both `[N, K, h, w]` and `[N, K, h', w']`; the larger is averaged down.

    Source: Guo et al., Class Attention Transfer Based Knowledge Distillation, CVPR 2023, eq. 4. Their code leaves N
    out between networks of one family: this follows the code for networks of different families. The authors use no
    soft labels beside it.

    Default weight: measured; the authors take 0.5 to 600.

    Args:
        lesson: the batch.
        cells: r, by default 2; the authors take 4 for ShuffleNet and ImageNet. Maps that are smaller are not pooled.
    """
    student, teacher = lesson.student.maps, lesson.taught.maps
    assert student is not None and teacher is not None, "map terms are refused before training"
    student, teacher = at_common_size(student, teacher)
    return F.mse_loss(_unit(student, cells), _unit(teacher, cells))


def _unit(maps: Tensor, cells: int) -> Tensor:
    height, width = maps.shape[-2:]
    return F.normalize(F.adaptive_avg_pool2d(maps, (min(cells, height), min(cells, width))).flatten(2), dim=2)
