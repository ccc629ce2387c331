"""Photometric augmentation: light, white balance, and the degradations of cameras: blur, noise and JPEG."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from kdedge.training.augmentation.jpeg import compress, mix_channels
from kdedge.training.augmentation.pixel_noise import uniform_noise

__all__ = ["PhotometricParams", "change_colors", "degrade", "draw_photometric", "photometric"]

_BRIGHTNESS, _CONTRAST, _SATURATION, _CHANNEL = 3.0, 2.0, 2.0, 1.4
"""Largest factors at strength 1; factors are log-uniform between their inverse and these."""
_BLUR_SHARE = 0.02
"""Largest standard deviation of the blur at strength 1, as a fraction of the longer side."""
_NOISE_SIGMA = 40.0
"""Largest standard deviation of the noise at strength 1, of 255."""
_QUALITIES = (95.0, 10.0)
"""JPEG quality at strength 0 and 1."""
_GRAY = 127.5
_LUMA = (0.299, 0.587, 0.114)
"""ITU-R BT.601 luma."""


class PhotometricParams(NamedTuple):
    """Photometric parameters, one row per image. A degradation of 0 leaves the image unchanged."""

    colors: Tensor
    """Affine map of RGB values, float32 `[n, 3, 4]`: a matrix and an offset of 255."""
    sigma: Tensor
    """Standard deviation of the blur in px, float32 `[n]`."""
    noise: Tensor
    """Standard deviation of the noise of 255, float32 `[n]`."""
    keys: Tensor
    """Hash keys of the noise, int16 `[n]`."""
    quality: Tensor
    """JPEG quality from 10 to 95, or 0 for none, float32 `[n]`."""

    def to(self, device: torch.device) -> "PhotometricParams":
        """Copy the parameters to a device."""
        return PhotometricParams(*(part.to(device) for part in self))

    def take(self, index: Tensor) -> "PhotometricParams":
        """Select the rows of a batch; `index` is int64 `[n]` on the same device."""
        return PhotometricParams(*(part[index] for part in self))


def draw_photometric(
    strength: float, count: int, height: int, width: int, generator: torch.Generator
) -> PhotometricParams:
    """Draw a change of color for half of the images, and one of no degradation, blur, noise and JPEG.

    Color changes are those of color jitter, with independent channel gains, as of a wrong white balance, instead of a
    rotation of the hue, which would exchange colors that have a meaning. Brightness varies by a factor of 3 at
    strength 1.

    Args:
        strength: strength from 0 to 1.
        count: number of images.
        height: image height in px.
        width: image width in px.
        generator: random generator; its device is the device of the result.
    """
    device = generator.device

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, device=device)

    recolored = strength * torch.randint(0, 2, (count, 1), generator=generator, device=device)

    def factor(largest: float, columns: int) -> Tensor:
        return (recolored * math.log(largest) * (2 * uniform(count, columns) - 1)).exp()

    gains = factor(_BRIGHTNESS, 1) * factor(_CHANNEL, 3)
    contrast, saturation = factor(_CONTRAST, 1)[:, :, None], factor(_SATURATION, 1)[:, :, None]
    luma = torch.stack([torch.full((3,), weight, device=device) for weight in _LUMA], dim=1)  # equal rows
    identity = torch.eye(3, device=device)
    mixing = luma + saturation * (identity - luma)  # rows sum to 1, so gray stays gray
    matrix = contrast * mixing * gains[:, None, :]
    offset = ((1 - contrast) * _GRAY).expand(-1, 3, 1)
    kind = torch.randint(0, 4, (count,), generator=generator, device=device)
    amount = strength * uniform(count)
    keys = torch.randint(-(2**15), 2**15, (count,), generator=generator, device=device, dtype=torch.int16)
    least, most = _QUALITIES
    return PhotometricParams(
        torch.cat((matrix, offset), dim=2),
        torch.where(kind == 1, amount * _BLUR_SHARE * max(height, width), 0.0),
        torch.where(kind == 2, amount * _NOISE_SIGMA, 0.0),
        keys,
        torch.where(kind == 3, least + (most - least) * amount, 0.0),
    )


def photometric(images: Tensor, params: PhotometricParams) -> Tensor:
    """Change the colors of each image, then degrade it; see `change_colors` and `degrade`.

    Args:
        images: uint8 RGB `[n, H, W, 3]`, not modified.
        params: rows for these images.

    Returns:
        New images of the same shape and dtype.
    """
    planes = degrade(change_colors(images.permute(0, 3, 1, 2).float(), params.colors), params)
    return planes.round_().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def change_colors(images: Tensor, colors: Tensor) -> Tensor:
    """Apply an affine map to the RGB values of each image; results are clipped.

    Args:
        images: float32 RGB `[n, 3, H, W]` from 0 to 255.
        colors: float32 `[n, 3, 4]`, see `PhotometricParams`.
    """
    return mix_channels(images, colors).clamp_(0, 255)


def degrade(images: Tensor, params: PhotometricParams) -> Tensor:
    """Blur images, add noise, and compress them, each where requested.

    Args:
        images: float32 RGB `[n, 3, H, W]` from 0 to 255.
        params: rows for these images.
    """
    images = _where(params.sigma > 0, _blurred, images, params.sigma)
    images = _where(params.noise > 0, _noisy, images, params.noise, params.keys)
    return _where(params.quality > 0, compress, images, params.quality)


def _where(chosen: Tensor, change: Callable[..., Tensor], images: Tensor, *rows: Tensor) -> Tensor:
    """Change the chosen images, bool `[n]`, alone if that needs no synchronization."""
    if _has_static_shapes(images):
        return torch.where(chosen[:, None, None, None], change(images, *rows), images)
    index = chosen.nonzero()[:, 0]
    return images.index_copy(0, index, change(images[index], *(row[index] for row in rows))) if len(index) else images


def _has_static_shapes(images: Tensor) -> bool:
    """Return True if shapes must not depend on values: a GPU would wait, and compilation would fail."""
    return images.is_cuda or torch.compiler.is_compiling()


def _noisy(images: Tensor, sigma: Tensor, keys: Tensor) -> Tensor:
    noise = uniform_noise(keys, *images.shape[2:])
    return (images + sigma[:, None, None, None] * noise).clamp_(0, 255)


def _blurred(images: Tensor, sigma: Tensor) -> Tensor:
    """Convolve each image with a Gaussian of its own width in px. Borders are reflected."""
    height, width = images.shape[2:]
    radius = max(1, round(2 * _BLUR_SHARE * max(height, width)))
    radius = min(radius, height - 1, width - 1)
    offsets = torch.arange(-radius, radius + 1, device=images.device)
    weights = torch.exp(-0.5 * (offsets / sigma.clamp(min=1e-3)[:, None]) ** 2)
    kernel = weights / weights.sum(dim=1, keepdim=True)
    planes = F.pad(images, (radius,) * 4, mode="reflect")
    # Sums of shifted images: the order of a convolution's sums depends on the number of images.
    planes = _weighted(kernel, [planes[:, :, at : at + height] for at in range(len(offsets))])
    return _weighted(kernel, [planes[..., at : at + width] for at in range(len(offsets))])


def _weighted(weights: Tensor, parts: Sequence[Tensor]) -> Tensor:
    """Sum images `[n, C, H, W]` with weights `[n, parts]`."""
    total = parts[0] * weights[:, 0, None, None, None]
    for at, part in enumerate(parts[1:], 1):
        total.addcmul_(part, weights[:, at, None, None, None])
    return total
