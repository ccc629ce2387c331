"""Array types that the signatures of the runtime speak in."""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Floats", "Integers", "Pixels"]

Pixels: TypeAlias = NDArray[np.uint8]
"""uint8 RGB in [0, 255]; `[H, W, 3]` for one picture, `[N, H, W, 3]` for a batch."""
Floats: TypeAlias = NDArray[np.float32]
Integers: TypeAlias = NDArray[np.int64]
