"""Weighted sums of activations over channels."""

from torch import Tensor

__all__ = ["spread_evenly", "weighted_sum"]


def weighted_sum(activations: Tensor, weights: Tensor) -> Tensor:
    """Compute maps `[N, k, h, w]`: activations `[N, C, h, w]` weighted by channel with `[N, k, C]` and summed."""
    return (weights @ activations.flatten(2)).reshape(*weights.shape[:2], *activations.shape[2:])


def spread_evenly(gradients: Tensor, activations: Tensor) -> Tensor:
    """Expand gradients `[N, k, C, h, w]` or `[N, k, C, 1, 1]` to every spatial position."""
    return gradients.expand(*gradients.shape[:3], *activations.shape[2:])
