"""Grad-CAM++ (Chattopadhay et al., 2018)."""

import torch
from torch import Tensor

from kdedge_export.saliency.methods.spatial_sums import spread_evenly, weighted_sum

__all__ = ["gradcam_plus_plus"]

MIN_SHARE = 1e-3
"""Minimum of the denominator relative to the size of its two terms; below, rounding would determine the weight."""


def gradcam_plus_plus(activations: Tensor, gradients: Tensor) -> Tensor:
    """Compute Grad-CAM++: `sum_k w_k A_k`, `w_k = sum_ij a_kij ReLU(g_kij)`, before the ReLU.

    The coefficients are `a = g² / (2 g² + g³ sum_ij A_kij)`. Chattopadhay et al., Grad-CAM++, WACV 2018, eq. 5 and 19,
    with `g²` canceled. A position with a vanishing denominator has no weight. After a ReLU none vanishes, since
    activations and the relevant gradients are positive.

    The authors' code additionally normalizes the `a` of each channel by their sum, replaces a denominator of 0 by 1,
    and uses the gradients of the exponential of the score, which scales the map. pytorch-grad-cam adds 1e-6 to the
    denominator. After global average pooling this is as large as `g²` itself, so that its maps differ from the paper's.

    Args:
        activations: float `[N, C, h, w]`.
        gradients: float `[N, k, C, h, w]` or `[N, k, C, 1, 1]`.

    Returns:
        `[N, k, h, w]`, signed.
    """
    product = activations.sum(dim=(2, 3))[:, None, :, None, None] * gradients
    denominator = 2 + product
    is_sound = denominator.abs() > MIN_SHARE * (2 + product.abs())
    ones = torch.ones_like(denominator)
    shares = torch.where(is_sound, 1 / torch.where(is_sound, denominator, ones), 0 * ones)
    weights = spread_evenly(shares * gradients.relu(), activations).sum(dim=(3, 4))
    return weighted_sum(activations, weights)
