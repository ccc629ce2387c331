"""Rendered images without a subject: patterned grounds and noise, which belong to no class of any model."""

import numpy as np
from PIL import Image

from kdedge_export.scenes.backdrops import backdrop
from kdedge_runtime.util.arrays import Pixels

__all__ = ["render_noise", "render_textures"]

_COARSEST_GRAIN = 0.1
"""Largest width of a grain of noise as a fraction of the shorter side."""


def render_textures(rng: np.random.Generator, count: int, height: int, width: int) -> Pixels:
    """Render patterned grounds with scattered shapes, and noise, in turn.

    Returns:
        uint8 RGB `[count, height, width, 3]`.
    """
    images = np.empty((count, height, width, 3), np.uint8)
    for index in range(count):
        images[index] = backdrop(rng, height, width) if index % 2 == 0 else render_noise(rng, height, width)
    return images


def render_noise(rng: np.random.Generator, height: int, width: int) -> Pixels:
    """Render Gaussian noise of random mean color, contrast, grain and saturation.

    Returns:
        uint8 RGB `[height, width, 3]`.
    """
    grain = max(1.0, rng.uniform(0, _COARSEST_GRAIN) * min(height, width))
    rows, columns = max(2, round(height / grain)), max(2, round(width / grain))
    is_gray, contrast, mean = rng.random() < 0.5, rng.uniform(10, 80), rng.uniform(40, 215, 3)
    noise = rng.standard_normal((rows, columns, 1 if is_gray else 3))
    coarse = np.clip(mean + contrast * noise, 0, 255).astype(np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
