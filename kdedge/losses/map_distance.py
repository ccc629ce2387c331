"""Distances between saliency maps."""

from torch import Tensor
from torch.nn import functional as F

from kdedge.losses.loss_inputs import LossInputs

__all__ = ["match_spatial_size", "saliency_distance", "pearson"]


CONSTANT = 1e-6
"""A row whose variation is below this fraction of its largest value is treated as constant (rounding)."""


def pearson(a: Tensor, b: Tensor) -> Tensor:
    """Compute the Pearson correlation over the last dimension; 0 without a gradient for constant rows.

    Args:
        a: float `[..., n]`.
        b: float `[..., n]`.

    Returns:
        float `[...]` in [-1, 1].
    """
    return F.cosine_similarity(_centered(a), _centered(b), dim=-1, eps=1e-8)


def _centered(rows: Tensor) -> Tensor:
    """Subtract the mean of each row; constant rows become exactly 0 despite float32 remainders."""
    centered = rows - rows.mean(dim=-1, keepdim=True)
    varies = centered.abs().amax(dim=-1, keepdim=True) > CONSTANT * rows.abs().amax(dim=-1, keepdim=True)
    return centered * varies


def match_spatial_size(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Average-pool maps `[..., h, w]` of two models to the smaller height and width; equal sizes are unchanged."""
    size = (min(a.shape[-2], b.shape[-2]), min(a.shape[-1], b.shape[-1]))
    pooled_a, pooled_b = (maps if maps.shape[-2:] == size else F.adaptive_avg_pool2d(maps, size) for maps in (a, b))
    return pooled_a, pooled_b


def saliency_distance(inputs: LossInputs, classes: int) -> Tensor:
    """Compute `1 - Pearson(M_S, M_T)` for the teacher's most probable classes, float `[N, k]` in [0, 2].

    It is invariant to scale and offset of the maps, so activations of student and teacher may differ in magnitude. It
    has a gradient where a rectified map would be zero.

    Args:
        inputs: loss inputs with maps.
        classes: number of classes to compare; all available ones if there are fewer.
    """
    student, teacher = inputs.student.maps, inputs.teacher_output.maps
    assert student is not None and teacher is not None, "validated before training"
    student, teacher = match_spatial_size(student[:, :classes], teacher[:, :classes])
    return 1 - pearson(student.flatten(2), teacher.flatten(2))
