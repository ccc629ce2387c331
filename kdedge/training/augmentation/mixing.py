"""Mixing pairs of images and their targets: mixup (Zhang et al., ICLR 2018) and cutmix (Yun et al., ICCV 2019)."""

from typing import NamedTuple

import torch
from torch import Tensor

from kdedge.config.augmentation_settings import Augmentation
from kdedge.training.augmentation.box_bounds import inside

__all__ = ["Mixing", "blend", "draw_mixing"]


class Mixing(NamedTuple):
    """How much of its partner each image takes on, and where; a row an image."""

    boxes: Tensor
    """int64 `[n, 4]`: top, left, bottom, right in px, the last two exclusive; the whole image for mixup."""
    weight: Tensor
    """float32 `[n]` in [0, 1]: the partner's, inside the box; 1 for cutmix."""


def draw_mixing(augmentation: Augmentation, count: int, height: int, width: int, generator: torch.Generator) -> Mixing:
    """Draw a weight or a box for every image; where mixup and cutmix are both asked for, either is as likely.

    Args:
        augmentation: the settings, with one of them at least.
        count: images.
        height: of the images, in px.
        width: of the images, in px.
        generator: its device is that of the result.
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
    """Mix every image but the first with the one before it, which is as it was.

    Batches are in random order, so neighbours are random pairs. A whole batch is mixed with its last image in front; a
    process that has a part of it needs one image more than its own, and nothing of what the others mix.

    Args:
        images: uint8 RGB `[1 + n, H, W, 3]`; left as they are.
        targets: float32 `[1 + n, K]`, distributions over the classes.
        mixing: drawn for n images of this height and width, on their device.

    Returns:
        Images uint8 `[n, H, W, 3]`, rounded where mixup blends and copied where cutmix pastes; and targets `[n, K]`, in
        which the partner's share is its box's share of the image's pixels, times its weight there.
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
    return Mixing(whole, _draw_beta(alpha, count, generator))


def _draw_cutmix(alpha: float, count: int, height: int, width: int, generator: torch.Generator) -> Mixing:
    """Boxes with the images' aspect ratio and a centre anywhere in them, cut off where they reach beyond."""
    device = generator.device
    share_of_side = _draw_beta(alpha, count, generator).sqrt()

    def draw_span(side: int) -> tuple[Tensor, Tensor]:
        centre = side * torch.rand(count, generator=generator, device=device)
        half = side * share_of_side / 2
        return (centre - half).round().clamp(0, side), (centre + half).round().clamp(0, side)

    (top, bottom), (left, right) = draw_span(height), draw_span(width)
    return Mixing(torch.stack((top, left, bottom, right), dim=1).long(), torch.ones(count, device=device))


def _draw_beta(alpha: float, count: int, generator: torch.Generator) -> Tensor:
    """float32 `[count]` of Beta(alpha, alpha), as `torch.distributions.Beta` draws it, which takes no generator."""
    both = torch.full((count, 2), alpha, dtype=torch.float32, device=generator.device)
    return torch._sample_dirichlet(both, generator)[:, 0]
