"""Input gradient (Simonyan et al., 2014)."""

from torch import Tensor

__all__ = ["input_gradient", "single_point"]


def single_point(images: Tensor, noise: Tensor) -> Tensor:
    """Return the image as the single point `[1, N, 3, H, W]`."""
    return images[None]


def input_gradient(points: Tensor, gradients: Tensor) -> Tensor:
    """Compute `max_c |dz/dx_cij|` over the color channels of the normalized input.

    Simonyan et al., Deep Inside Convolutional Networks, ICLR 2014 workshop, section 3.1.

    Args:
        points: float `[1, N, 3, H, W]`.
        gradients: same shape.

    Returns:
        `[N, H, W]`, nonnegative.
    """
    return gradients[0].abs().amax(dim=1)
