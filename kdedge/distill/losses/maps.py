"""Look where the teacher looks: explanation terms on centred, unrectified saliency maps.

The distance between two maps is `1 - Pearson(M_S, M_T)`: blind to their scale and offset, so that student and teacher
need not agree on the size of their activations, and with a gradient where a rectified map would be all zero. Close
relatives: e2KD (Parchami-Araghi et al., ECCV 2024: cosine of rectified maps, top class) and CAT-KD (Guo et al., CVPR
2023: squared error of all classes' maps).
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from kdedge.distill.lesson import Lesson

__all__ = ["MOST_PROBABLE", "all_class_maps", "at_common_size", "pearson", "top_class_map"]

MOST_PROBABLE = 32
"""How many of the teacher's classes `mapall` compares; with more classes the rest carries next to no weight."""


def top_class_map(lesson: Lesson) -> Tensor:
    """`1 - Pearson` of the maps of the teacher's top class, mean over the batch."""
    return _disagreement(lesson, lesson.taught.logits.argmax(dim=1, keepdim=True))[:, 0].mean()


def all_class_maps(lesson: Lesson) -> Tensor:
    """`sum_c p_T(c) (1 - Pearson(M_S^c, M_T^c))` over the teacher's most probable classes, mean over the batch.

    The probabilities are the teacher's at the run's temperature, renormalised over those classes.
    """
    logits = lesson.taught.logits / lesson.temperature
    top, classes = logits.topk(min(MOST_PROBABLE, logits.shape[1]), dim=1)
    return (top.softmax(dim=1) * _disagreement(lesson, classes)).sum(dim=1).mean()


def pearson(a: Tensor, b: Tensor) -> Tensor:
    """Pearson correlation over the last two dimensions; 0 where a map is constant.

    Args:
        a: float `[..., h, w]`.
        b: the same shape.

    Returns:
        float `[...]` in [-1, 1].
    """
    a, b = (value.flatten(-2) - value.mean(dim=(-2, -1))[..., None] for value in (a, b))
    return F.cosine_similarity(a, b, dim=-1, eps=1e-8)


def _disagreement(lesson: Lesson, classes: Tensor) -> Tensor:
    """`[N, k]`: 1 - Pearson of each class's maps."""
    student = lesson.student.maps(classes)
    with torch.no_grad():
        teacher = lesson.taught.maps(classes)
    return 1 - pearson(*at_common_size(student, teacher))


def at_common_size(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Maps `[..., h, w]` of two models, averaged down to the smaller height and width; untouched where they fit."""
    size = (min(a.shape[-2], b.shape[-2]), min(a.shape[-1], b.shape[-1]))
    pooled_a, pooled_b = (maps if maps.shape[-2:] == size else F.adaptive_avg_pool2d(maps, size) for maps in (a, b))
    return pooled_a, pooled_b
