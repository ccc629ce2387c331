"""Drawings of explanations for files: a sample next to its map, with the prediction below."""

import numpy as np
from PIL import Image

from kdedge_runtime.drawing.caption import Caption, append_caption
from kdedge_runtime.util.arrays import Pixels

__all__ = ["pair_with_caption"]

_GAP_PX = 6


def pair_with_caption(plain: Pixels, overlay: Pixels, caption: Caption) -> Pixels:
    """Return a drawn sample next to its overlay with a caption below, uint8 RGB.

    Args:
        plain: drawn sample, uint8 RGB; resized to the overlay.
        overlay: sample with its map, uint8 RGB.
        caption: caption of both.
    """
    left = Image.fromarray(plain).resize(overlay.shape[1::-1], Image.Resampling.BICUBIC)
    gap = np.full((overlay.shape[0], _GAP_PX, 3), 255, dtype=np.uint8)
    pair = Image.fromarray(np.concatenate([np.asarray(left), gap, overlay], axis=1))
    return np.asarray(append_caption(pair, caption))
