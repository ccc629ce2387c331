"""Saliency-map loss: correlation of centered, unrectified maps of the teacher's top class."""

from torch import Tensor

from kdedge.losses.loss_inputs import Lesson
from kdedge.losses.map_distance import disagreement

__all__ = ["top_class_map"]


def top_class_map(lesson: Lesson) -> Tensor:
    """Compute `1 - Pearson(M_S, M_T)` of the maps of the teacher's top class, mean over the batch.

    Shapes: maps `[N, k, h, w]` and `[N, k, h', w']`, the teacher's top class first; the larger is average-pooled.
    Source: this project; see `disagreement`.
    Default weight: 20, as for `mapall`.
    """
    return disagreement(lesson, 1)[:, 0].mean()
