"""Class activation mapping (Zhou et al., 2016)."""

from torch import Tensor

from kdedge_export.saliency.methods.spatial_sums import weighted_sum

__all__ = ["cam"]


def cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Compute CAM: `sum_k w_kc A_k` with the weights of the dense layer after global average pooling.

    The weights are `h·w` times the gradient at each position. Zhou et al., Learning Deep Features for Discriminative
    Localization, CVPR 2016, eq. 2.

    Args:
        activations: float `[N, C, h, w]`.
        gradients: float `[N, k, C, 1, 1]`, equal at every position.

    Returns:
        `[N, k, h, w]`, signed; its mean over positions is the logit without its bias.
    """
    return weighted_sum(activations, gradients.flatten(2) * (activations.shape[2] * activations.shape[3]))
