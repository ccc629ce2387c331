"""Grad-CAM (Selvaraju et al., 2017)."""

from torch import Tensor

from kdedge_export.saliency.methods.spatial_sums import weighted_sum

__all__ = ["gradcam"]


def gradcam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Compute Grad-CAM: `sum_k (mean_ij dz_c/dA_kij) A_k`, before the ReLU.

    Selvaraju et al., Grad-CAM, ICCV 2017, eq. 1 and 2.

    Args:
        activations: float `[N, C, h, w]`.
        gradients: float `[N, k, C, h, w]` or `[N, k, C, 1, 1]`.

    Returns:
        `[N, k, h, w]`, signed.
    """
    one_for_all = gradients.shape[3:] == (1, 1)
    weights = gradients.flatten(2) if one_for_all else gradients.mean(dim=(3, 4))
    return weighted_sum(activations, weights)
