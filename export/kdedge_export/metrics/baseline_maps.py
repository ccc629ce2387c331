"""Baseline maps that do not depend on the model; a model's own maps must score better."""

import numpy as np
from PIL import Image

from kdedge_export.metrics.agreement import is_constant
from kdedge_export.metrics.resampling import area_mean
from kdedge_runtime.util.arrays import Floats, Pixels

__all__ = ["center_maps", "edge_maps", "random_maps", "upsampled"]

_GRAY = np.array([0.299, 0.587, 0.114], dtype=np.float32)
"""ITU-R BT.601 luma."""


def random_maps(n: int, height: int, width: int, seed: int = 0) -> Floats:
    """Return maps of independent uniform noise, float32 `[n, height, width]` in [0, 1)."""
    return np.random.default_rng(seed).random((n, height, width), dtype=np.float32)


def edge_maps(images: Pixels, height: int, width: int) -> Floats:
    """Compute Sobel edge strength, averaged over each spatial position of the map.

    The control of Adebayo et al., Sanity Checks for Saliency Maps, NeurIPS 2018: it resembles an explanation but
    depends only on the image.

    Args:
        images: uint8 RGB `[N, H, W, 3]`.
        height: map height.
        width: map width.

    Returns:
        float32 `[N, height, width]`.
    """
    gray = np.pad(images.astype(np.float32) @ _GRAY, ((0, 0), (1, 1), (1, 1)), mode="edge")
    smooth_rows = gray[:, :-2] + 2 * gray[:, 1:-1] + gray[:, 2:]
    smooth_columns = gray[:, :, :-2] + 2 * gray[:, :, 1:-1] + gray[:, :, 2:]
    across = smooth_rows[:, :, 2:] - smooth_rows[:, :, :-2]
    down = smooth_columns[:, 2:] - smooth_columns[:, :-2]
    return area_mean(np.hypot(across, down), height, width)


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
