"""How maps are compared."""

from torch import Tensor
from torch.nn import functional as F

from kdedge.losses.loss_inputs import Lesson

__all__ = ["at_common_size", "disagreement", "pearson"]


CONSTANT = 1e-6
"""A row that varies by no more than this share of its largest value is constant: the rest is rounding."""


def pearson(a: Tensor, b: Tensor) -> Tensor:
    """Pearson correlation over the last dimension; 0, without a gradient, where a row is constant.

    Args:
        a: float `[..., n]`.
        b: the same shape.

    Returns:
        float `[...]` in [-1, 1].
    """
    return F.cosine_similarity(_centred(a), _centred(b), dim=-1, eps=1e-8)


def _centred(rows: Tensor) -> Tensor:
    """Rows less their mean; all 0 where they are constant, as float32 leaves an equal remainder in each value."""
    centred = rows - rows.mean(dim=-1, keepdim=True)
    varies = centred.abs().amax(dim=-1, keepdim=True) > CONSTANT * rows.abs().amax(dim=-1, keepdim=True)
    return centred * varies


def at_common_size(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Maps `[..., h, w]` of two models, averaged down to the smaller height and width; untouched where they fit."""
    size = (min(a.shape[-2], b.shape[-2]), min(a.shape[-1], b.shape[-1]))
    pooled_a, pooled_b = (maps if maps.shape[-2:] == size else F.adaptive_avg_pool2d(maps, size) for maps in (a, b))
    return pooled_a, pooled_b


def disagreement(lesson: Lesson, classes: int) -> Tensor:
    """`1 - Pearson(M_S, M_T)` of the maps of the teacher's most probable classes, float `[N, k]` in [0, 2].

    Blind to the scale and the offset of maps, so that student and teacher need not agree on the size of their
    activations, and with a gradient where a rectified map would be all zero.

    Args:
        lesson: with maps.
        classes: how many of the classes whose maps were taken; all of them where there are fewer.
    """
    student, teacher = lesson.student.maps, lesson.taught.maps
    assert student is not None and teacher is not None, "map terms are refused before training"
    student, teacher = at_common_size(student[:, :classes], teacher[:, :classes])
    return 1 - pearson(student.flatten(2), teacher.flatten(2))
