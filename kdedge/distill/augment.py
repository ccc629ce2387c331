"""Batched augmentation on the device that holds the images."""

import torch
from torch import Tensor

__all__ = ["shift_and_flip"]


def shift_and_flip(images: Tensor, generator: torch.Generator, *, shift: int, flip: bool) -> Tensor:
    """Shift every image by its own offset, with mirrored edges, and mirror half of them.

    One gather does both; nothing is interpolated, so pixels stay as they are.

    Args:
        images: uint8 `[N, H, W, 3]`.
        generator: draws the offsets, on the images' device.
        shift: largest offset in px, along each axis; less than H and W.
        flip: whether to mirror left and right.
    """
    count, height, width = images.shape[:3]
    device = images.device

    def draw(low: int, high: int) -> Tensor:
        return torch.randint(low, high, (count, 1), generator=generator, device=device)

    rows = _mirrored(torch.arange(height, device=device) + draw(-shift, shift + 1), height)
    columns = _mirrored(torch.arange(width, device=device) + draw(-shift, shift + 1), width)
    if flip:
        columns = torch.where(draw(0, 2) == 1, width - 1 - columns, columns)
    batch = torch.arange(count, device=device)[:, None, None]
    return images[batch, rows[:, :, None], columns[:, None, :]]


def _mirrored(index: Tensor, size: int) -> Tensor:
    index = index.abs()
    return torch.where(index >= size, 2 * (size - 1) - index, index)
