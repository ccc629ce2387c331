"""Grad-CAM++."""

import torch
from torch import Tensor

from kdedge_export.saliency.methods.cells import everywhere, weighted_sum

__all__ = ["gradcam_plus_plus"]

EPSILON = 1e-6
"""As in pytorch-grad-cam; as large as the squared gradients behind global average pooling, and part of the map."""


def gradcam_plus_plus(activations: Tensor, gradients: Tensor) -> Tensor:
    """`sum_k w_k A_k`, `w_k = sum_ij a_kij ReLU(g_kij)`, `a = g² / (2 g² + g³ sum_ij A_kij)`, before the ReLU.

    Chattopadhay et al., Grad-CAM++, WACV 2018, eq. 5 and 19.

    Args:
        activations: float `[N, C, h, w]`.
        gradients: float `[N, k, C, h, w]` or `[N, k, C, 1, 1]`.

    Returns:
        `[N, k, h, w]`, signed.
    """
    squared = gradients * gradients
    sums = activations.sum(dim=(2, 3))[:, None, :, None, None]
    shares = squared / (2 * squared + sums * squared * gradients + EPSILON)
    shares = torch.where(gradients != 0, shares, torch.zeros_like(shares))
    weights = everywhere(shares * gradients.relu(), activations).sum(dim=(3, 4))
    return weighted_sum(activations, weights)
