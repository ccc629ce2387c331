"""Noise hashed from keys and pixel positions, so that augmentation parameters need not store it."""

import torch
from torch import Tensor

__all__ = ["noise_bytes", "uniform_noise"]

_BYTE_STD = 73.9
"""Standard deviation of a uniform byte."""


def noise_bytes(keys: Tensor, height: int, width: int) -> Tensor:
    """Hash keys and pixel positions to uniform bytes, uint8 `[n, H, W, 3]`.

    Args:
        keys: int16 `[n]`; equal keys give equal noise.
        height: image height in px.
        width: image width in px.
    """
    rows = _scrambled((keys.long()[:, None] << 16) + torch.arange(height, device=keys.device))
    columns = _scrambled(torch.arange(3 * width, device=keys.device))
    noise = rows[:, :, None] ^ columns
    noise *= 0x6255  # wraps at 16 bits, whose high bits depend on all inputs; in place, five times faster on a CPU
    noise >>= 8
    return noise.to(torch.uint8).view(-1, height, width, 3)


def uniform_noise(keys: Tensor, height: int, width: int) -> Tensor:
    """Return uniform noise of mean 0 and standard deviation 1, float32 `[n, 3, H, W]`; see `noise_bytes`."""
    return ((noise_bytes(keys, height, width).float() - 127.5) / _BYTE_STD).permute(0, 3, 1, 2)


def _scrambled(numbers: Tensor) -> Tensor:
    """Hash int64 to int16 by multiply and xor-shift, like the finalizer of MurmurHash3."""
    numbers = numbers * 0x9E3779B1 & 0xFFFFFFFF
    numbers = (numbers ^ numbers >> 15) * 0x45D9F3B & 0xFFFFFFFF
    return (numbers ^ numbers >> 16).to(torch.int16)
