"""Look where the teacher looks: the centred, unrectified map of its top class."""

from torch import Tensor

from kdedge.losses.loss_inputs import Lesson
from kdedge.losses.map_distance import disagreement

__all__ = ["top_class_map"]


def top_class_map(lesson: Lesson) -> Tensor:
    """`1 - Pearson(M_S, M_T)` of the maps of the teacher's top class, mean over the batch.

    Shapes: maps of both `[N, k, h, w]` and `[N, k, h', w']`, the teacher's top class first; the larger is averaged
    down.

    Source: this project; see `disagreement`.

    Default weight: 20, that of `mapall`.
    """
    return disagreement(lesson, 1)[:, 0].mean()
