"""SmoothGrad (Smilkov et al., 2017)."""

import torch
from torch import Tensor

__all__ = ["NOISE_LEVEL", "SAMPLES", "noise_field", "noisy_copies", "smoothgrad"]

SAMPLES = 16
"""Number of samples; each needs a forward and a backward pass."""
NOISE_LEVEL = 0.15
"""Standard deviation of the noise relative to the image's range; the paper recommends 0.1 to 0.2."""


def noise_field(height: int, width: int) -> Tensor:
    """Return a seeded field of normal noise `[3, height, width]`.

    Samples are shifted copies of it. Independent samples would add megabytes to the file and be hardly more random.
    """
    return torch.randn(3, height, width, generator=torch.Generator().manual_seed(0))


def noisy_copies(images: Tensor, noise: Tensor) -> Tensor:
    """Return noisy copies of the images, then the images, `[SAMPLES + 1, N, 3, H, W]`."""
    height, width = noise.shape[1:]
    shifts = [(index * height // SAMPLES, index * 7 * width // SAMPLES % width) for index in range(SAMPLES)]
    samples = torch.stack([torch.roll(noise, shift, dims=(1, 2)) for shift in shifts])
    reach = images.amax(dim=(1, 2, 3), keepdim=True) - images.amin(dim=(1, 2, 3), keepdim=True)
    return torch.cat([images + NOISE_LEVEL * reach * samples[:, None], images[None]])


def smoothgrad(points: Tensor, gradients: Tensor) -> Tensor:
    """Compute `max_c |mean_s dz/dx_c(x + noise_s)|` over the color channels.

    Smilkov et al., SmoothGrad, 2017 (arXiv 1706.03825), section 3.

    Args:
        points: float `[SAMPLES + 1, N, 3, H, W]`.
        gradients: same shape.

    Returns:
        `[N, H, W]`, nonnegative.
    """
    return gradients[:-1].mean(dim=0).abs().amax(dim=1)
