"""Random Erasing: replace a box of an image by noise (Zhong et al., AAAI 2020)."""

import math

import torch
from torch import Tensor

from kdedge.training.augmentation.box_bounds import inside
from kdedge.training.augmentation.pixel_noise import noise_bytes

__all__ = ["draw_erasures", "erase"]

# Ranges as in torchvision; areas in the paper go up to 0.4.
_AREA = (0.02, 0.33)  # fraction of the image
_ASPECT = (0.3, 3.3)  # height / width
_ATTEMPTS = 10


def draw_erasures(
    probability: float, count: int, height: int, width: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw boxes to erase and the keys of their noise.

    The area is uniform, the aspect ratio log-uniform, and the position uniform inside the image. A box that does not
    fit is redrawn, up to ten attempts in total, as in torchvision and timm.

    Args:
        probability: probability of erasing, per image.
        count: number of images.
        height: image height in px.
        width: image width in px.
        generator: random generator; its device is the device of the results.

    Returns:
        Boxes int64 `[count, 4]`, empty if nothing is erased, and noise keys int16 `[count]`.
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
    """Replace every value in an image's box by a random value from 0 to 255.

    Noise is the choice of the paper and of timm's recipes; torchvision's default is black.

    Args:
        images: uint8 `[n, H, W, 3]`.
        boxes: int64 `[n, 4]`, see `draw_erasures`.
        keys: int16 `[n]`; equal keys give equal noise.
    """
    height, width = images.shape[1:3]
    return torch.where(inside(boxes, height, width), noise_bytes(keys, height, width), images)
