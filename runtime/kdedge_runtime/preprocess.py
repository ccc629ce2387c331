"""From a picture of any size to the model's input: the one geometry that training, validation and device share."""

import numpy as np
from PIL import Image

from kdedge_runtime.metadata import ImageInput, Interpolation
from kdedge_runtime.util.arrays import Pixels

__all__ = ["fit", "visible_box"]

_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def visible_box(height: int, width: int, spec: ImageInput) -> tuple[float, float, float, float]:
    """Return what the model sees of a `height` × `width` picture, as `(left, top, right, bottom)` in pixels.

    A letterbox reaches beyond the picture, where its black borders are.
    """
    if spec.resize == "squash":
        return 0.0, 0.0, float(width), float(height)
    if spec.resize == "letterbox":
        inner_height, inner_width = _inner_size(height, width, spec)
        across, down = width / inner_width, height / inner_height
        left, top = -((spec.width - inner_width) // 2) * across, -((spec.height - inner_height) // 2) * down
        return left, top, left + spec.width * across, top + spec.height * down
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
    if fits and (spec.resize != "crop" or spec.crop_fraction == 1.0):
        return picture
    if spec.resize == "letterbox":
        inner_height, inner_width = _inner_size(height, width, spec)
        whole = 0.0, 0.0, float(width), float(height)
        inner = _resampled(picture, inner_height, inner_width, whole, spec.interpolation)
        left, top = (spec.width - inner_width) // 2, (spec.height - inner_height) // 2
        boxed = np.zeros((spec.height, spec.width, 3), dtype=np.uint8)
        boxed[top : top + inner_height, left : left + inner_width] = inner
        return boxed
    return _resampled(picture, spec.height, spec.width, visible_box(height, width, spec), spec.interpolation)


def _resampled(
    picture: Pixels, to_height: int, to_width: int, box: tuple[float, float, float, float], interpolation: Interpolation
) -> Pixels:
    """Cut a box out of a picture and bring it to a size, across first and then down.

    Each pass rounds to eight bits. Pillow 13 goes down first in tall pictures and earlier ones never do, so both passes
    are called here; the browser's are in the same order.
    """
    height = picture.shape[0]
    left, top, right, bottom = box
    kind = _FILTERS[interpolation]
    across = Image.fromarray(picture).resize((to_width, height), kind, box=(left, 0, right, height))
    return np.asarray(across.resize((to_width, to_height), kind, box=(0, top, to_width, bottom)))


def _inner_size(height: int, width: int, spec: ImageInput) -> tuple[int, int]:
    """Return the height and width of a picture inside its letterbox, in whole pixels."""
    scale = min(spec.height / height, spec.width / width)
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))
