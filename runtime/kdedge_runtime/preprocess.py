"""From a picture of any size to the model's input: the one geometry that training, validation and device share."""

import numpy as np
from PIL import Image

from kdedge_runtime.arrays import Pixels
from kdedge_runtime.metadata import ImageInput

__all__ = ["fit", "visible_box"]

_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def visible_box(height: int, width: int, spec: ImageInput) -> tuple[float, float, float, float]:
    """The part of a `height` × `width` picture that the model sees, as `(left, top, right, bottom)` in pixels."""
    if spec.resize == "squash":
        return 0.0, 0.0, float(width), float(height)
    scale = min(height / spec.height, width / spec.width) * spec.crop_fraction
    # Rounding may put the full side a hair beyond the edge, which Pillow refuses.
    seen_height, seen_width = min(spec.height * scale, height), min(spec.width * scale, width)
    left, top = (width - seen_width) / 2, (height - seen_height) / 2
    return left, top, left + seen_width, top + seen_height


def fit(picture: Pixels, spec: ImageInput) -> Pixels:
    """Bring one picture to the model's size.

    Cropping and scaling are one resampling step with the filter widened by the scale (antialiased), so a large
    photo does not alias.

    Args:
        picture: uint8 RGB `[H, W, 3]`, any size.
        spec: the model's input.

    Returns:
        uint8 RGB `[spec.height, spec.width, 3]`.
    """
    height, width = picture.shape[:2]
    fits = (height, width) == (spec.height, spec.width)
    if fits and (spec.resize == "squash" or spec.crop_fraction == 1.0):
        return picture
    resized = Image.fromarray(picture).resize(
        (spec.width, spec.height), _FILTERS[spec.interpolation], box=visible_box(height, width, spec)
    )
    return np.asarray(resized)
