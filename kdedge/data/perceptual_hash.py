"""Perceptual hash of images (pHash): signs of low frequencies."""

import numpy as np
from PIL import Image

from kdedge_runtime.util.arrays import Pixels

__all__ = ["perceptual_hash"]

_SIDE, _FREQUENCIES = 32, 8
_COSINES = np.cos(np.pi / (2 * _SIDE) * np.outer(np.arange(_FREQUENCIES), 2 * np.arange(_SIDE) + 1))


def perceptual_hash(image: Pixels) -> int:
    """Compute a hash of 64 bits, which JPEG, noise and brightness hardly change.

    A bit is set if a coefficient of the cosine transform of the 32 × 32 grayscale image exceeds the median. Similar
    images differ in few bits. Source: Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions, 2010.

    Args:
        image: uint8 RGB `[H, W, 3]`.
    """
    small = Image.fromarray(image).convert("L").resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)
    coefficients = _COSINES @ np.asarray(small, np.float32) @ _COSINES.T
    return int.from_bytes(np.packbits(coefficients > np.median(coefficients)).tobytes())
