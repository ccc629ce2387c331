"""Array type aliases and small array functions shared by all packages."""

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Floats", "Integers", "Pixels", "Targets", "evenly_spaced", "normalize_rows", "softmax"]

Pixels: TypeAlias = NDArray[np.uint8]
"""uint8 RGB in [0, 255]: `[H, W, 3]` for one image, `[N, H, W, 3]` for a batch."""
Floats: TypeAlias = NDArray[np.float32]
Integers: TypeAlias = NDArray[np.int64]
Targets: TypeAlias = NDArray[Any]
"""Ground truth of `N` samples as their task encodes it: int64 `[N]`, such as class indices, or float32 `[N]`."""


def evenly_spaced(total: int, most: int) -> Integers:
    """Return at most `most` indices spread evenly over `total` samples, because folders are sorted by class."""
    count = min(total, most)
    return np.arange(count, dtype=np.int64) * total // max(count, 1)


def normalize_rows(rows: Floats) -> Floats:
    """Divide vectors, finite float32 `[N, D]`, by their lengths, which may be of any size but zero."""
    exact = rows.astype(np.float64)  # squares of float32 values neither overflow nor vanish in it
    result: Floats = (exact / np.linalg.norm(exact, axis=1, keepdims=True)).astype(np.float32)
    return result


def softmax(logits: Floats) -> Floats:
    """Convert logits `[N, K]` to probabilities `[N, K]`."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    result: Floats = shifted / shifted.sum(axis=1, keepdims=True)
    return result
