"""Eigen-CAM (Muhammad and Yeasin, 2020)."""

import torch
from torch import Tensor

__all__ = ["eigencam"]

SQUARINGS = 12
"""Number of squarings of the covariance; they reduce the second component by (λ₂/λ₁)^4096."""


def eigencam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Project centered activations on their first principal component; class-agnostic.

    Muhammad and Yeasin, Eigen-CAM, IJCNN 2020, eq. 3, centered as in pytorch-grad-cam. ONNX has no singular value
    decomposition, so the covariance is squared repeatedly until only the first component is left. Its sign, which is
    arbitrary, follows Chung and Jan (Seg-Eigen-CAM, Applied Sciences 2025, eq. 13): the largest value is positive.

    Args:
        activations: float `[N, C, h, w]`.
        gradients: float `[N, k, C, …]`; only the number of maps is used.

    Returns:
        `[N, k, h, w]`, signed.
    """
    positions = activations.flatten(2).transpose(1, 2)
    positions = positions - positions.mean(dim=1, keepdim=True)
    power = (
        positions.transpose(1, 2) @ positions
        if positions.shape[2] <= positions.shape[1]
        else positions @ positions.transpose(1, 2)
    )
    for _ in range(SQUARINGS):
        power = power / (power.diagonal(dim1=1, dim2=2).sum(dim=1)[:, None, None] + 1e-30)
        power = power @ power
    # The power approaches λ u uᵀ, whose largest column is u.
    largest = power.square().sum(dim=1).argmax(dim=1)
    direction = power.gather(2, largest[:, None, None].expand(-1, power.shape[1], 1))
    direction = direction / (direction.square().sum(dim=1, keepdim=True).sqrt() + 1e-30)
    if positions.shape[2] <= positions.shape[1]:
        projection = (positions @ direction)[..., 0]
    else:
        length = (positions.transpose(1, 2) @ direction).square().sum(dim=1).sqrt()
        projection = direction[..., 0] * length
    flipped = projection.amin(dim=1, keepdim=True).abs() > projection.amax(dim=1, keepdim=True).abs()
    projection = torch.where(flipped, -projection, projection)
    maps = projection.reshape(activations.shape[0], 1, *activations.shape[2:])
    return maps.expand(-1, gradients.shape[1], -1, -1)
