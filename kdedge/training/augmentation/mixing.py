"""mixup (Zhang et al., ICLR 2018) and CutMix (Yun et al., ICCV 2019) for image pairs and their targets."""

from typing import NamedTuple

import torch
from torch import Tensor

from kdedge.config.augmentation_settings import Augmentation
from kdedge.training.augmentation.box_bounds import inside

__all__ = ["Mixing", "blend", "draw_beta", "draw_mixing"]


class Mixing(NamedTuple):
    """Mixing parameters, one row per image."""

    boxes: Tensor
    """Boxes int64 `[n, 4]`: top, left, bottom, right in px, bottom and right exclusive; the whole image for mixup."""
    weight: Tensor
    """Weight of the partner inside the box, float32 `[n]` in [0, 1]; 1 for CutMix."""


def draw_mixing(augmentation: Augmentation, count: int, height: int, width: int, generator: torch.Generator) -> Mixing:
    """Draw a weight or a box for every image; with both mixup and CutMix enabled, each has probability 1/2.

    Args:
        augmentation: augmentation settings with at least one of them enabled.
        count: number of images.
        height: image height in px.
        width: image width in px.
        generator: random generator; its device is the device of the result.
    """
    if not augmentation.cutmix:
        return _draw_mixup(augmentation.mixup, count, height, width, generator)
    cutmix = _draw_cutmix(augmentation.cutmix, count, height, width, generator)
    if not augmentation.mixup:
        return cutmix
    mixup = _draw_mixup(augmentation.mixup, count, height, width, generator)
    is_cut = torch.randint(0, 2, (count,), generator=generator, device=generator.device) == 1
    return Mixing(
        torch.where(is_cut[:, None], cutmix.boxes, mixup.boxes), torch.where(is_cut, cutmix.weight, mixup.weight)
    )


def blend(images: Tensor, targets: Tensor, mixing: Mixing) -> tuple[Tensor, Tensor]:
    """Mix every image except the first with its predecessor in the unmixed batch.

    Batches are in random order, so neighbors are random pairs. A whole batch is mixed with its last image in front. A
    process that holds a part of the batch needs one extra image, and no mixed image of other processes.

    Args:
        images: uint8 RGB `[1 + n, H, W, 3]`, not modified.
        targets: class distributions, float32 `[1 + n, K]`.
        mixing: parameters drawn for n images of this height and width, on their device.

    Returns:
        Images uint8 `[n, H, W, 3]`, rounded for mixup and copied for CutMix, and targets `[n, K]`. The partner's target
        weight is its fraction of the image area, times its weight there.
    """
    height, width = images.shape[1:3]
    partners, own = images[:-1], images[1:]
    whole = torch.lerp(own.float(), partners.float(), mixing.weight[:, None, None, None])
    mixed = torch.where(inside(mixing.boxes, height, width), whole.round_().to(torch.uint8), own)
    top, left, bottom, right = mixing.boxes.unbind(1)
    share = mixing.weight * ((bottom - top) * (right - left)) / (height * width)
    return mixed, targets[1:] + share[:, None] * (targets[:-1] - targets[1:])


def _draw_mixup(alpha: float, count: int, height: int, width: int, generator: torch.Generator) -> Mixing:
    zero = torch.zeros(count, dtype=torch.int64, device=generator.device)
    whole = torch.stack((zero, zero, zero + height, zero + width), dim=1)
    return Mixing(whole, draw_beta(alpha, count, generator))


def _draw_cutmix(alpha: float, count: int, height: int, width: int, generator: torch.Generator) -> Mixing:
    """Draw boxes with the aspect ratio of the image and a uniform center, clipped to the image."""
    device = generator.device
    share_of_side = draw_beta(alpha, count, generator).sqrt()

    def draw_span(side: int) -> tuple[Tensor, Tensor]:
        center = side * torch.rand(count, generator=generator, device=device)
        half = side * share_of_side / 2
        return (center - half).round().clamp(0, side), (center + half).round().clamp(0, side)

    (top, bottom), (left, right) = draw_span(height), draw_span(width)
    return Mixing(torch.stack((top, left, bottom, right), dim=1).long(), torch.ones(count, device=device))


def draw_beta(alpha: float, count: int, generator: torch.Generator) -> Tensor:
    """Draw from Beta(alpha, alpha), float32 `[count]`, like `torch.distributions.Beta`, which takes no generator."""
    both = torch.full((count, 2), alpha, dtype=torch.float32, device=generator.device)
    return torch._sample_dirichlet(both, generator)[:, 0]
