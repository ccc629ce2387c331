"""DeepLIFT with the rescale rule (Shrikumar et al., 2017)."""

import torch
from torch import Tensor

__all__ = ["deeplift", "rescale"]

_LEAST = 1e-6
"""Difference from the reference below which a multiplier is the derivative."""


def rescale(value: Tensor, reference: Tensor, output: Tensor, reference_output: Tensor, slope: Tensor) -> Tensor:
    """Compute the multiplier `(f(z) - f(z0)) / (z - z0)` of an activation, or its derivative where `z` is near `z0`.

    Shrikumar et al., Learning Important Features Through Propagating Activation Differences, ICML 2017, eq. 13. It is
    the mean of the derivative on the way from `z0` to `z`.

    Args:
        value: input `z` of the activation, float `[N, H]`.
        reference: input `z0` for the reference, `[1, H]`.
        output: `f(z)`, `[N, H]`.
        reference_output: `f(z0)`, `[1, H]`.
        slope: derivative `f'(z)`, `[N, H]`.

    Returns:
        float `[N, H]`.
    """
    change = value - reference
    is_near = change.abs() < _LEAST
    return torch.where(is_near, slope, (output - reference_output) / torch.where(is_near, 1.0, change))


def deeplift(features: Tensor, multipliers: Tensor) -> Tensor:
    """Compute `sum_c m_c x_c` over the numbers of each position, for the reference zero.

    The map sums to the logit minus that of the reference, for networks of any depth. For one hidden layer of ReLUs it
    equals integrated gradients.

    Args:
        features: float `[N, C, h, w]`.
        multipliers: product of all multipliers and weights on the way to each logit, `[N, k, C, h, w]`.

    Returns:
        `[N, k, h, w]`, signed.
    """
    return (multipliers * features[:, None]).sum(dim=2)
