"""Integrated gradients (Sundararajan et al., 2017)."""

import numpy as np
import torch
from torch import Tensor

__all__ = ["STEPS", "integrated_gradients", "integration_path"]

STEPS = 16
"""Number of points on the path; each needs a forward and a backward pass."""
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(STEPS)


def integration_path(images: Tensor, noise: Tensor) -> Tensor:
    """Return points from the mean color (zero when normalized) to the images, then those, `[STEPS + 1, N, 3, H, W]`."""
    nodes = torch.tensor([*(_NODES + 1) / 2, 1.0], dtype=images.dtype, device=images.device)
    return nodes[:, None, None, None, None] * images


def integrated_gradients(points: Tensor, gradients: Tensor) -> Tensor:
    """Compute `sum_c x_c ∫ dz/dx_c(a x) da` over the color channels, by Gauss-Legendre quadrature.

    Sundararajan et al., Axiomatic Attribution for Deep Networks, ICML 2017, eq. 1. The map sums to the difference
    between the logit and that of the baseline.

    Args:
        points: float `[STEPS + 1, N, 3, H, W]`.
        gradients: same shape.

    Returns:
        `[N, H, W]`, signed.
    """
    weights = torch.tensor(_WEIGHTS / 2, dtype=points.dtype, device=points.device)[:, None, None, None, None]
    return (points[-1] * (weights * gradients[:-1]).sum(dim=0)).sum(dim=1)
