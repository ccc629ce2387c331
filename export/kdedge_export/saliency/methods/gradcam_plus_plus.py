"""Grad-CAM++."""

import torch
from torch import Tensor

from kdedge_export.saliency.methods.spatial_sums import everywhere, weighted_sum

__all__ = ["gradcam_plus_plus"]

LEAST_SHARE = 1e-3
"""Of its two terms' size that the denominator must keep: nearer to 0, rounding decides the weight."""


def gradcam_plus_plus(activations: Tensor, gradients: Tensor) -> Tensor:
    """`sum_k w_k A_k`, `w_k = sum_ij a_kij ReLU(g_kij)`, `a = g² / (2 g² + g³ sum_ij A_kij)`, before the ReLU.

    Chattopadhay et al., Grad-CAM++, WACV 2018, eq. 5 and 19, with `g²` cancelled. A cell whose denominator vanishes has
    no weight; behind a ReLU none does, as activations and the gradients that count are positive.

    The authors' code divides the `a` of each channel by their sum besides, takes 1 for a denominator of 0, and has the
    gradients of the exponential of the score, which scales a picture's map. pytorch-grad-cam adds 1e-6 to the
    denominator: as much as `g²` itself behind global average pooling, where its maps are others than the paper's.

    Args:
        activations: float `[N, C, h, w]`.
        gradients: float `[N, k, C, h, w]` or `[N, k, C, 1, 1]`.

    Returns:
        `[N, k, h, w]`, signed.
    """
    product = activations.sum(dim=(2, 3))[:, None, :, None, None] * gradients
    denominator = 2 + product
    is_sound = denominator.abs() > LEAST_SHARE * (2 + product.abs())
    ones = torch.ones_like(denominator)
    shares = torch.where(is_sound, 1 / torch.where(is_sound, denominator, ones), 0 * ones)
    weights = everywhere(shares * gradients.relu(), activations).sum(dim=(3, 4))
    return weighted_sum(activations, weights)
