"""Maps that look at nothing of a model: what a model's own maps must beat to mean anything."""

import numpy as np
from PIL import Image

from kdedge_export.metrics.agreement import is_constant
from kdedge_export.metrics.resampling import area_mean
from kdedge_runtime.util.arrays import Floats, Pixels

__all__ = ["centre_maps", "edge_maps", "random_maps", "upsampled"]

_GREY = np.array([0.299, 0.587, 0.114], dtype=np.float32)
"""ITU-R BT.601 luma."""


def random_maps(n: int, height: int, width: int, seed: int = 0) -> Floats:
    """Independent cells, float32 `[n, height, width]` in [0, 1)."""
    return np.random.default_rng(seed).random((n, height, width), dtype=np.float32)


def edge_maps(images: Pixels, height: int, width: int) -> Floats:
    """The strength of the pictures' edges in each cell: the Sobel gradient's length, averaged.

    The control of Adebayo et al., Sanity Checks for Saliency Maps, NeurIPS 2018: what looks like an explanation but
    knows only the picture.

    Args:
        images: uint8 RGB `[N, H, W, 3]`.
        height: of the maps, in cells.
        width: of the maps, in cells.
    """
    grey = np.pad(images.astype(np.float32) @ _GREY, ((0, 0), (1, 1), (1, 1)), mode="edge")
    smooth_rows = grey[:, :-2] + 2 * grey[:, 1:-1] + grey[:, 2:]
    smooth_columns = grey[:, :, :-2] + 2 * grey[:, :, 1:-1] + grey[:, :, 2:]
    across = smooth_rows[:, :, 2:] - smooth_rows[:, :, :-2]
    down = smooth_columns[:, 2:] - smooth_columns[:, :-2]
    return area_mean(np.hypot(across, down), height, width)


def centre_maps(n: int, height: int, width: int) -> Floats:
    """The guess that every object is in the middle: a bell of a quarter of the picture's size, `[n, height, width]`."""
    bells = (np.exp(-0.5 * (((np.arange(side) + 0.5) / side - 0.5) / 0.25) ** 2) for side in (height, width))
    down, across = bells
    return np.broadcast_to(np.outer(down, across).astype(np.float32), (n, height, width))


def upsampled(maps: Floats, height: int, width: int, shift: tuple[float, float] = (0.0, 0.0)) -> Floats:
    """Return maps at a picture's size, bicubic; a constant map stays exactly constant.

    Args:
        maps: `[N, h, w]`.
        height: of the picture, in pixels.
        width: of the picture, in pixels.
        shift: displacement of the maps' content to the right and down, in cells, each in [-1, 1]
            (`kdedge_runtime.drawing.heatmap.MapDisplay`).
    """
    flat, (across, down), (rows, columns) = is_constant(maps), shift, maps.shape[1:]
    border = 0 if shift == (0.0, 0.0) else 1  # repeated cells fill what the shift uncovers
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
