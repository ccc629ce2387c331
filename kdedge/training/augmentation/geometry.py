"""Where a pixel comes from: shifts, mirroring, and the geometric part of RandAugment."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["draw_warps", "move", "move_and_warp"]

_ROTATION_RAD = math.radians(30)
_SHEAR = 0.3
_ZOOM = 1.3  # moves an edge about as far as the largest shear does


def draw_warps(strength: float, count: int, generator: torch.Generator) -> Tensor:
    """One of rotation, shear along x, shear along y, and zoom for every image, each as likely.

    One operation an image, of uniformly drawn strength and sign, follows TrivialAugment (Müller and Hutter, ICCV
    2021), which does as well as RandAugment's compositions (Cubuk et al., 2020). The ranges at strength 1 are
    RandAugment's, but for zoom, which it lacks: uniform in the logarithm of its factor.

    Args:
        strength: 0 to 1; at 1 rotation reaches 30°, shear 0.3, and zoom a factor of 1.3 either way.
        count: images.
        generator: its device is that of the result.

    Returns:
        float32 `[count, 2, 2]`: matrices that take an offset `(x, y)` from the centre of the result, in px, to
        the offset from the centre of the image where its pixel is found.
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
    """Mirror left and right where asked, then shift, in one gather: nothing is interpolated, values stay as they are.

    Args:
        images: uint8 `[n, H, W, 3]`.
        shift: int64 `[n, 2]`: px down and px right of the window on the mirrored-padded image, less than H and W.
        mirrored: bool `[n]`.
    """
    count, height, width = images.shape[:3]
    rows = _reflect(torch.arange(height, device=images.device) + shift[:, :1], height)
    columns = _reflect(torch.arange(width, device=images.device) + shift[:, 1:], width)
    columns = torch.where(mirrored[:, None], width - 1 - columns, columns)
    rows = rows + height * torch.arange(count, device=images.device)[:, None]
    # As one index over all pixels, a third of the time that three broadcast indices take on a CPU.
    pixels = rows[:, :, None] * width + columns[:, None, :]
    return images.reshape(-1, 3).index_select(0, pixels.flatten()).view_as(images)


def move_and_warp(images: Tensor, shift: Tensor, mirrored: Tensor, warps: Tensor) -> Tensor:
    """Warp, mirror and shift in one bilinear sampling, with mirrored edges; float32 inside.

    Without a warp (the unit matrix) the result is that of `move`.

    Args:
        images: uint8 `[n, H, W, 3]`.
        shift: as in `move`.
        mirrored: as in `move`.
        warps: float32 `[n, 2, 2]`, see `draw_warps`.
    """
    height, width = images.shape[1:3]
    # The grid's unit is half the way between the centres of opposite edge pixels, where the mirrors stand as in `move`.
    half_height, half_width = (height - 1) / 2, (width - 1) / 2
    y = torch.arange(height, device=images.device) - half_height + shift[:, :1]
    x = torch.arange(width, device=images.device) - half_width + shift[:, 1:]
    x = torch.where(mirrored[:, None], -x, x)
    # Not F.affine_grid: its matrix product would lose sub-pixel positions to TF32 or autocast.
    to_grid = torch.stack((warps[:, 0] / max(half_width, 0.5), warps[:, 1] / max(half_height, 0.5)), dim=1)
    along_x, along_y = to_grid[:, None, None].unbind(-1)
    grid = x[:, None, :, None] * along_x + y[:, :, None, None] * along_y
    planes = images.permute(0, 3, 1, 2).float()
    warped = F.grid_sample(planes, grid, mode="bilinear", padding_mode="reflection", align_corners=True)
    return warped.round_().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def _reflect(index: Tensor, size: int) -> Tensor:
    index = index.abs()
    return torch.where(index >= size, 2 * (size - 1) - index, index)
