"""The gradient at the pixels."""

from torch import Tensor

__all__ = ["input_gradient", "the_image"]


def the_image(images: Tensor, noise: Tensor) -> Tensor:
    """The one point `[1, N, 3, H, W]` where the gradient is taken."""
    return images[None]


def input_gradient(points: Tensor, gradients: Tensor) -> Tensor:
    """`max_c |dz/dx_cij|` over the colour channels of the normalised input.

    Simonyan et al., Deep Inside Convolutional Networks, ICLR 2014 workshop, section 3.1.

    Args:
        points: float `[1, N, 3, H, W]`.
        gradients: of the same shape.

    Returns:
        `[N, H, W]`, not negative.
    """
    return gradients[0].abs().amax(dim=1)
