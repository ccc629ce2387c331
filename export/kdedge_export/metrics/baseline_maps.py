"""Baseline maps that do not depend on the model; a model's own maps must score better."""

import numpy as np
from PIL import Image

from kdedge_export.metrics.map_similarity import is_constant
from kdedge_runtime.util.arrays import Floats

__all__ = ["center_maps", "random_maps", "upsampled"]


def random_maps(n: int, height: int, width: int, seed: int = 0) -> Floats:
    """Return maps of independent uniform noise, float32 `[n, height, width]` in [0, 1)."""
    return np.random.default_rng(seed).random((n, height, width), dtype=np.float32)


def center_maps(n: int, height: int, width: int) -> Floats:
    """Return a center-prior baseline: a Gaussian with σ = a quarter of the image side, `[n, height, width]`."""
    bells = (np.exp(-0.5 * (((np.arange(side) + 0.5) / side - 0.5) / 0.25) ** 2) for side in (height, width))
    down, across = bells
    return np.broadcast_to(np.outer(down, across).astype(np.float32), (n, height, width))


def upsampled(maps: Floats, height: int, width: int, shift: tuple[float, float] = (0.0, 0.0)) -> Floats:
    """Upsample maps to image size with bicubic interpolation; constant maps stay exactly constant.

    Args:
        maps: `[N, h, w]`.
        height: image height in pixels.
        width: image width in pixels.
        shift: displacement of the map content to the right and down, in map positions, each in [-1, 1]
            (`kdedge_runtime.drawing.heatmap.MapDisplay`).
    """
    flat, (across, down), (rows, columns) = is_constant(maps), shift, maps.shape[1:]
    border = 0 if shift == (0.0, 0.0) else 1  # the shift uncovers a border, filled by edge replication
    window = border - across, border - down, border - across + columns, border - down + rows
    grown = [
        np.full((height, width), item.mean(), dtype=np.float32)
        if constant
        else np.asarray(
            Image.fromarray(np.pad(item.astype(np.float32), border, mode="edge")).resize(
                (width, height), Image.Resampling.BICUBIC, box=window
            ),
            dtype=np.float32,
        )
        for item, constant in zip(maps, flat, strict=True)
    ]
    return np.stack(grown)
