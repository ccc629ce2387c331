"""Reference images for self-tests: colored squares, identical on every machine."""

import hashlib

import numpy as np

from kdedge_runtime.util.arrays import Pixels

__all__ = ["draw_reference_image"]

_POSITIONS = (3, 9, 27)
"""Squares per side in each layer of an image."""


def draw_reference_image(seed: int, height: int, width: int) -> Pixels:
    """Generate an image of colored squares, uint8 RGB `[height, width, 3]`, identical on every machine."""
    layers = np.zeros((height, width, 3), dtype=np.uint16)
    for positions in _POSITIONS:
        colors = _noise(f"{seed}/{positions}", positions * positions * 3).reshape(positions, positions, 3)
        rows, columns = np.arange(height) * positions // height, np.arange(width) * positions // width
        layers += colors[rows][:, columns]
    return (layers // len(_POSITIONS)).astype(np.uint8)


def _noise(key: str, count: int) -> Pixels:
    """Return pseudo-random bytes that do not depend on library versions."""
    blocks = (hashlib.sha256(f"{key}/{number}".encode()).digest() for number in range(-(-count // 32)))
    return np.frombuffer(b"".join(blocks)[:count], dtype=np.uint8)
