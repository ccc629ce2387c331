"""HiResCAM (Draelos and Carin, 2020)."""

from torch import Tensor

from kdedge_export.saliency.methods.spatial_sums import weighted_sum

__all__ = ["hirescam"]


def hirescam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Compute HiResCAM: `sum_k (dz_c/dA_kij) A_kij`, each position weighted by its own gradient.

    Draelos and Carin, Use HiResCAM instead of Grad-CAM, 2020 (arXiv 2011.08891), eq. 4.

    Args:
        activations: float `[N, C, h, w]`.
        gradients: float `[N, k, C, h, w]` or `[N, k, C, 1, 1]`.

    Returns:
        `[N, k, h, w]`, signed.
    """
    if gradients.shape[3:] == (1, 1):  # equals Grad-CAM, as one matrix product
        return weighted_sum(activations, gradients.flatten(2))
    return (gradients * activations[:, None]).sum(dim=2)
