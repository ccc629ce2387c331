"""Geometric augmentation: shift, horizontal flip, and the geometric part of RandAugment."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["draw_warps", "move", "move_and_warp"]

_ROTATION_RAD = math.radians(30)
_SHEAR = 0.3
_ZOOM = 1.3  # moves an edge about as far as the largest shear


def draw_warps(strength: float, count: int, generator: torch.Generator) -> Tensor:
    """Draw one of rotation, x shear, y shear and zoom for every image, with equal probability.

    One operation per image with uniform magnitude and sign follows TrivialAugment (Müller and Hutter, ICCV 2021). It
    performs as well as the compositions of RandAugment (Cubuk et al., 2020). The ranges at strength 1 are those of
    RandAugment. It has no zoom; the zoom factor here is log-uniform.

    Args:
        strength: strength from 0 to 1. At 1 the limits are 30° rotation, 0.3 shear, and a zoom of 1.3 in or out.
        count: number of images.
        generator: random generator; its device is the device of the result.

    Returns:
        Matrices float32 `[count, 2, 2]`. They map an offset `(x, y)` in px from the output center to the offset from
        the input center.
    """
    device = generator.device
    amount = strength * (2 * torch.rand(count, generator=generator, device=device) - 1)
    kind = torch.randint(0, 4, (count,), generator=generator, device=device)
    angle_rad, shear_x, shear_y, log_zoom = (
        torch.where(kind == i, largest * amount, 0.0)
        for i, largest in enumerate((_ROTATION_RAD, _SHEAR, _SHEAR, math.log(_ZOOM)))
    )
    diagonal, sine = angle_rad.cos() * log_zoom.exp(), angle_rad.sin()
    return torch.stack((diagonal, shear_x - sine, shear_y + sine, diagonal), dim=1).view(count, 2, 2)


def move(images: Tensor, shift: Tensor, mirrored: Tensor) -> Tensor:
    """Flip horizontally where requested, then shift, in one gather without interpolation.

    Args:
        images: uint8 `[n, H, W, 3]`.
        shift: int64 `[n, 2]`, offset of the window in px down and right on the reflection-padded image; less than H and
            W.
        mirrored: bool `[n]`, True to flip.
    """
    count, height, width = images.shape[:3]
    rows = _reflect(torch.arange(height, device=images.device) + shift[:, :1], height)
    columns = _reflect(torch.arange(width, device=images.device) + shift[:, 1:], width)
    columns = torch.where(mirrored[:, None], width - 1 - columns, columns)
    rows = rows + height * torch.arange(count, device=images.device)[:, None]
    # One index over all pixels takes a third of the time of three broadcast indices on a CPU.
    pixels = rows[:, :, None] * width + columns[:, None, :]
    return images.reshape(-1, 3).index_select(0, pixels.flatten()).view_as(images)


def move_and_warp(images: Tensor, shift: Tensor, mirrored: Tensor, warps: Tensor) -> Tensor:
    """Warp, flip and shift in one bilinear sampling in float32, with reflection padding.

    With the identity warp the result equals that of `move`.

    Args:
        images: uint8 `[n, H, W, 3]`.
        shift: as in `move`.
        mirrored: as in `move`.
        warps: float32 `[n, 2, 2]`, see `draw_warps`.
    """
    height, width = images.shape[1:3]
    # The grid unit is half the distance between the centers of opposite edge pixels, the axes of reflection in `move`.
    half_height, half_width = (height - 1) / 2, (width - 1) / 2
    y = torch.arange(height, device=images.device) - half_height + shift[:, :1]
    x = torch.arange(width, device=images.device) - half_width + shift[:, 1:]
    x = torch.where(mirrored[:, None], -x, x)
    # Not F.affine_grid: its matrix product would lose subpixel positions to TF32 or autocast.
    to_grid = torch.stack((warps[:, 0] / max(half_width, 0.5), warps[:, 1] / max(half_height, 0.5)), dim=1)
    along_x, along_y = to_grid[:, None, None].unbind(-1)
    grid = x[:, None, :, None] * along_x + y[:, :, None, None] * along_y
    planes = images.permute(0, 3, 1, 2).float()
    warped = F.grid_sample(planes, grid, mode="bilinear", padding_mode="reflection", align_corners=True)
    return warped.round_().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def _reflect(index: Tensor, size: int) -> Tensor:
    index = index.abs()
    return torch.where(index >= size, 2 * (size - 1) - index, index)
