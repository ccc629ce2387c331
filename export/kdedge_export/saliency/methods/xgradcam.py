"""XGrad-CAM (Fu et al., 2020)."""

from torch import Tensor

from kdedge_export.saliency.methods.spatial_sums import spread_evenly, weighted_sum

__all__ = ["xgradcam"]

EPSILON = 1e-7
"""Added to the denominator as in pytorch-grad-cam, for channels that are zero everywhere."""


def xgradcam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Compute XGrad-CAM: `sum_k w_k A_k`, `w_k = sum_ij g_kij A_kij / sum_ij A_kij`, before the ReLU.

    Fu et al., Axiom-based Grad-CAM, BMVC 2020, eq. 8 and 9.

    Args:
        activations: float `[N, C, h, w]`.
        gradients: float `[N, k, C, h, w]` or `[N, k, C, 1, 1]`.

    Returns:
        `[N, k, h, w]`, signed.
    """
    shares = activations / (activations.sum(dim=(2, 3), keepdim=True) + EPSILON)
    weights = (spread_evenly(gradients, activations) * shares[:, None]).sum(dim=(3, 4))
    return weighted_sum(activations, weights)
