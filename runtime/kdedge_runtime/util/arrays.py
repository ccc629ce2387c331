"""Array type aliases shared by all packages, and evenly spaced indices."""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Floats", "Integers", "Pixels", "evenly_spaced"]

Pixels: TypeAlias = NDArray[np.uint8]
"""uint8 RGB in [0, 255]: `[H, W, 3]` for one image, `[N, H, W, 3]` for a batch."""
Floats: TypeAlias = NDArray[np.float32]
Integers: TypeAlias = NDArray[np.int64]


def evenly_spaced(total: int, most: int) -> Integers:
    """Return at most `most` indices spread evenly over `total` images, because folders are sorted by class."""
    count = min(total, most)
    return np.arange(count, dtype=np.int64) * total // max(count, 1)
