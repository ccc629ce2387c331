"""Rectified maps of the teacher's top class by cosine."""

from torch import Tensor
from torch.nn import functional as F

from kdedge.losses.loss_inputs import Lesson
from kdedge.losses.map_distance import at_common_size

__all__ = ["rectified_map"]


def rectified_map(lesson: Lesson) -> Tensor:
    """`1 - cos(relu M_S, relu M_T)` of the maps of the teacher's top class, mean over the batch.

    A student's map that is nowhere positive costs 1 and has no gradient; `map` has no such hole.

    Shapes: maps of both `[N, k, h, w]` and `[N, k, h', w']`, the teacher's top class first; the larger is averaged
    down.

    Source: Parchami-Araghi et al., Good Teachers Explain (e²KD), ECCV 2024, eq. 3 with Grad-CAM. Their code enlarges
    the maps to the size of the image first, the equation compares them as they are: this follows the paper.
    Their loss has soft labels of weight 1 beside it and no hard ones: `kd:1,e2:5`.

    Default weight: 5.
    """
    student, teacher = lesson.student.maps, lesson.taught.maps
    assert student is not None and teacher is not None, "map terms are refused before training"
    student, teacher = at_common_size(student[:, 0].relu(), teacher[:, 0].relu())
    return (1 - F.cosine_similarity(student.flatten(1), teacher.flatten(1), eps=1e-8)).mean()
