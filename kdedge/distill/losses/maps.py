"""Look where the teacher looks: explanation terms on centred, unrectified saliency maps.

The distance between two maps is `1 - Pearson(M_S, M_T)`: blind to their scale and offset, so that student and teacher
need not agree on the size of their activations, and with a gradient where a rectified map would be all zero.
"""

from torch import Tensor

from kdedge.distill.losses.distance import at_common_size, pearson
from kdedge.distill.losses.lesson import Lesson

__all__ = ["MOST_PROBABLE", "all_class_maps", "top_class_map"]

MOST_PROBABLE = 32
"""How many of the teacher's classes `mapall` compares; with more classes the rest carries next to no weight."""


def top_class_map(lesson: Lesson) -> Tensor:
    """`1 - Pearson` of the maps of the teacher's top class, mean over the batch."""
    return _disagreement(lesson, 1)[:, 0].mean()


def all_class_maps(lesson: Lesson, *, classes: int = MOST_PROBABLE) -> Tensor:
    """`sum_c p_T(c) (1 - Pearson(M_S^c, M_T^c))` over the teacher's most probable classes, mean over the batch.

    The probabilities are the teacher's at the run's temperature, renormalised over those classes.

    Args:
        lesson: the batch.
        classes: how many classes to compare; all of them where there are fewer.
    """
    disagreement = _disagreement(lesson, classes)
    assert lesson.taught.classes is not None
    top = lesson.taught.logits.gather(1, lesson.taught.classes[:, :classes])
    return ((top / lesson.temperature).softmax(dim=1) * disagreement).sum(dim=1).mean()


def _disagreement(lesson: Lesson, classes: int) -> Tensor:
    """`[N, k]`: 1 - Pearson of each class's maps."""
    student, teacher = lesson.student.maps, lesson.taught.maps
    assert student is not None and teacher is not None, "map terms are refused before training"
    student, teacher = at_common_size(student[:, :classes], teacher[:, :classes])
    return 1 - pearson(student.flatten(2), teacher.flatten(2))
