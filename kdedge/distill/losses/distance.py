"""How maps are compared."""

from torch import Tensor
from torch.nn import functional as F

__all__ = ["at_common_size", "pearson"]


def pearson(a: Tensor, b: Tensor) -> Tensor:
    """Pearson correlation over the last dimension; 0 where a row is constant.

    Args:
        a: float `[..., n]`.
        b: the same shape.

    Returns:
        float `[...]` in [-1, 1].
    """
    return F.cosine_similarity(a - a.mean(dim=-1, keepdim=True), b - b.mean(dim=-1, keepdim=True), dim=-1, eps=1e-8)


def at_common_size(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Maps `[..., h, w]` of two models, averaged down to the smaller height and width; untouched where they fit."""
    size = (min(a.shape[-2], b.shape[-2]), min(a.shape[-1], b.shape[-1]))
    pooled_a, pooled_b = (maps if maps.shape[-2:] == size else F.adaptive_avg_pool2d(maps, size) for maps in (a, b))
    return pooled_a, pooled_b
