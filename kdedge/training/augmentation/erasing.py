"""Random Erasing: a box of an image becomes noise (Zhong et al., AAAI 2020)."""

import math

import torch
from torch import Tensor

from kdedge.training.augmentation.box_bounds import inside

__all__ = ["draw_erasures", "erase"]

# torchvision's ranges; the paper's areas go up to 0.4.
_AREA = (0.02, 0.33)  # share of the image
_ASPECT = (0.3, 3.3)  # height / width
_ATTEMPTS = 10


def draw_erasures(
    probability: float, count: int, height: int, width: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Boxes to erase, and what their noise is made from.

    The area is uniform, the aspect ratio uniform in its logarithm, the place uniform among those inside the image.
    A box that does not fit is drawn again, up to ten times in all, as in torchvision and timm.

    Args:
        probability: of erasing, for each image.
        count: images.
        height: of the images, in px.
        width: of the images, in px.
        generator: its device is that of the results.

    Returns:
        The boxes int64 `[count, 4]`, empty where nothing is erased, and keys of the noise int16 `[count]`.
    """
    device = generator.device

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=generator, device=device)

    area = uniform(*_AREA, count, _ATTEMPTS) * (height * width)
    aspect = uniform(math.log(_ASPECT[0]), math.log(_ASPECT[1]), count, _ATTEMPTS).exp()
    sides = torch.stack((area * aspect, area / aspect)).sqrt().round()
    fits = (sides[0] < height) & (sides[1] < width)
    first = fits.to(torch.uint8).argmax(dim=1, keepdim=True)
    tall, wide = sides.gather(2, first.expand(2, -1, -1))[:, :, 0]
    top = (uniform(0, 1, count) * (height - tall + 1)).floor()
    left = (uniform(0, 1, count) * (width - wide + 1)).floor()
    erased = fits.any(dim=1) & (uniform(0, 1, count) < probability)
    boxes = torch.stack((top, left, top + tall, left + wide), dim=1) * erased[:, None]
    keys = torch.randint(-(2**15), 2**15, (count,), generator=generator, device=device, dtype=torch.int16)
    return boxes.long(), keys


def erase(images: Tensor, boxes: Tensor, keys: Tensor) -> Tensor:
    """Replace every value in an image's box by a random one of 0 to 255.

    Noise is the paper's choice and that of timm's recipes; torchvision's default is black.

    Args:
        images: uint8 `[n, H, W, 3]`.
        boxes: int64 `[n, 4]`, see `draw_erasures`.
        keys: int16 `[n]`: images with the same key have the same noise.
    """
    height, width = images.shape[1:3]
    return torch.where(inside(boxes, height, width), _noise(keys, height, width), images)


def _noise(keys: Tensor, height: int, width: int) -> Tensor:
    """uint8 `[n, H, W, 3]`: a hash of key and place, so that a view need not store its noise."""
    rows = _scrambled((keys.long()[:, None] << 16) + torch.arange(height, device=keys.device))
    columns = _scrambled(torch.arange(3 * width, device=keys.device))
    noise = rows[:, :, None] ^ columns
    noise *= 0x6255  # wraps at 16 bits, of which the high ones depend on all; in place, five times faster on a CPU
    noise >>= 8
    return noise.to(torch.uint8).view(-1, height, width, 3)


def _scrambled(numbers: Tensor) -> Tensor:
    """int64 to int16 that look random; multiplies and folds, as the finalizer of MurmurHash3 does."""
    numbers = numbers * 0x9E3779B1 & 0xFFFFFFFF
    numbers = (numbers ^ numbers >> 15) * 0x45D9F3B & 0xFFFFFFFF
    return (numbers ^ numbers >> 16).to(torch.int16)
