"""LayerCAM (Jiang et al., 2021)."""

from torch import Tensor

from kdedge_export.saliency.methods.spatial_sums import spread_evenly

__all__ = ["layercam"]


def layercam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Compute LayerCAM: `sum_k ReLU(dz_c/dA_kij) A_kij`, before the last ReLU.

    Jiang et al., LayerCAM, IEEE TIP 2021, eq. 5 to 7.

    Args:
        activations: float `[N, C, h, w]`.
        gradients: float `[N, k, C, h, w]` or `[N, k, C, 1, 1]`.

    Returns:
        `[N, k, h, w]`; negative only where activations are.
    """
    return (spread_evenly(gradients.relu(), activations) * activations[:, None]).sum(dim=2)
