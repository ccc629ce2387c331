"""JPEG compression of batches on the training device: 8×8 DCT, quantization, and their inverse.

The tables are those of ITU-T T.81 (1992), annex K, scaled by quality as in libjpeg. Chroma is not subsampled.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["compress", "mix_channels"]

_LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMINANCE = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)
_TO_YCBCR = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
_TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136, -0.714136), (1.0, 1.772, 0.0))


class _Constants(NamedTuple):
    to_ycbcr: Tensor
    to_rgb: Tensor
    dct: Tensor
    """Orthonormal DCT-II of 8 values, float32 `[8, 8]`."""
    tables: Tensor
    """Quantization tables at quality 50, float32 `[3, 8, 8]`."""


def compress(images: Tensor, quality: Tensor) -> Tensor:
    """Compress and decompress images.

    Args:
        images: float32 RGB `[n, 3, H, W]` from 0 to 255, not modified.
        quality: JPEG quality from 1 to 100, float32 `[n]`; lower values count as 1.

    Returns:
        New images, within about one level of libjpeg's without chroma subsampling.
    """
    count, _, height, width = images.shape
    to_ycbcr, to_rgb, transform, tables = _constants(images.device)
    padded = F.pad(images, (0, -width % 8, 0, -height % 8), mode="replicate")
    rows, columns = padded.shape[2] // 8, padded.shape[3] // 8
    planes = mix_channels(padded, to_ycbcr)
    planes[:, 0] -= 128
    blocks = planes.view(count, 3, rows, 8, columns, 8)
    steps = _steps(tables, quality)[:, :, None, :, None, :]
    coefficients = _transformed(_transformed(blocks, transform, 5), transform, 3).div_(steps).round_().mul_(steps)
    planes = _transformed(_transformed(coefficients, transform.T, 5), transform.T, 3).view(count, 3, *padded.shape[2:])
    planes[:, 0] += 128
    return mix_channels(planes, to_rgb).clamp_(0, 255)[:, :, :height, :width]


def mix_channels(images: Tensor, matrix: Tensor) -> Tensor:
    """Multiply the channels of images by a matrix, with results that do not depend on the number of images.

    Args:
        images: float32 `[n, 3, H, W]`, not modified.
        matrix: `[3, 3]`, or `[n, 3, 4]` with a column of offsets.
    """
    columns = matrix.expand(len(images), -1, -1)[..., None, None].unbind(2)
    mixed = columns[0] * images[:, None, 0]
    for channel in (1, 2):
        mixed.addcmul_(columns[channel], images[:, None, channel])
    return mixed.add_(columns[3]) if len(columns) == 4 else mixed


def _transformed(blocks: Tensor, matrix: Tensor, dim: int) -> Tensor:
    """Multiply a dimension of 8 values by a matrix `[8, 8]`; see `mix_channels` on the order of sums."""
    shape = [1] * blocks.ndim
    shape[dim] = 8
    parts = [matrix[:, at].view(shape) for at in range(8)]
    total = blocks.narrow(dim, 0, 1) * parts[0]
    for at in range(1, 8):
        total.addcmul_(blocks.narrow(dim, at, 1), parts[at])
    return total


def _steps(tables: Tensor, quality: Tensor) -> Tensor:
    """Compute the quantization steps of each image, float32 `[n, 3, 8, 8]`."""
    quality = quality.clamp(min=1)
    percent = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality)
    return ((tables * percent[:, None, None, None] + 50) / 100).floor_().clamp_(1, 255)


_CONSTANTS: dict[str, _Constants] = {}
"""Constants by device; copies to a GPU would wait for it."""


def _constants(device: torch.device) -> _Constants:
    key = str(device)
    if key not in _CONSTANTS:
        _CONSTANTS[key] = _Constants(*(value.to(device) for value in _constants_on_cpu()))
    return _CONSTANTS[key]


def _constants_on_cpu() -> _Constants:
    k = torch.arange(8)
    dct = torch.cos(math.pi / 8 * (k + 0.5) * k[:, None]) / 2
    dct[0] /= math.sqrt(2)
    tables = torch.tensor([_LUMINANCE, _CHROMINANCE, _CHROMINANCE], dtype=torch.float32)
    return _Constants(torch.tensor(_TO_YCBCR), torch.tensor(_TO_RGB), dct, tables)
