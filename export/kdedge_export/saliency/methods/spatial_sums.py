"""Sums over the cells of a map."""

from torch import Tensor

__all__ = ["everywhere", "weighted_sum"]


def weighted_sum(activations: Tensor, weights: Tensor) -> Tensor:
    """Maps `[N, k, h, w]`: activations `[N, C, h, w]`, weighted by channel with `[N, k, C]` and summed."""
    return (weights @ activations.flatten(2)).reshape(*weights.shape[:2], *activations.shape[2:])


def everywhere(gradients: Tensor, activations: Tensor) -> Tensor:
    """Gradients `[N, k, C, h, w]` at every cell, also where they are given as the same one for all of them."""
    return gradients.expand(*gradients.shape[:3], *activations.shape[2:])
