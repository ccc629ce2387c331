"""Resizing of images to the model input, shared by training, validation and the device."""

import numpy as np
from PIL import Image

from kdedge_runtime.metadata import ImageInput, Interpolation
from kdedge_runtime.util.arrays import Pixels

__all__ = ["preprocess", "visible_box"]

_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def visible_box(height: int, width: int, spec: ImageInput) -> tuple[float, float, float, float]:
    """Return the visible part of a `height` × `width` image as `(left, top, right, bottom)` in pixels.

    A letterbox extends beyond the image, into its black borders.
    """
    if spec.resize == "squash":
        return 0.0, 0.0, float(width), float(height)
    if spec.resize == "letterbox":
        inner_height, inner_width = _inner_size(height, width, spec)
        across, down = width / inner_width, height / inner_height
        left, top = -((spec.width - inner_width) // 2) * across, -((spec.height - inner_height) // 2) * down
        return left, top, left + spec.width * across, top + spec.height * down
    scale = min(height / spec.height, width / spec.width) * spec.crop_fraction
    # Rounding may place the side slightly beyond the edge, which Pillow rejects.
    seen_height, seen_width = min(spec.height * scale, height), min(spec.width * scale, width)
    left, top = (width - seen_width) / 2, (height - seen_height) / 2
    return left, top, left + seen_width, top + seen_height


def preprocess(image: Pixels, spec: ImageInput) -> Pixels:
    """Resize an image to the model's input size.

    Crop and resize are one antialiased resampling step.

    Args:
        image: uint8 RGB `[H, W, 3]` of any size.
        spec: model input specification.

    Returns:
        uint8 RGB `[spec.height, spec.width, 3]`.
    """
    height, width = image.shape[:2]
    fits = (height, width) == (spec.height, spec.width)
    if fits and (spec.resize != "crop" or spec.crop_fraction == 1.0):
        return image
    if spec.resize == "letterbox":
        inner_height, inner_width = _inner_size(height, width, spec)
        whole = 0.0, 0.0, float(width), float(height)
        inner = _resampled(image, inner_height, inner_width, whole, spec.interpolation)
        left, top = (spec.width - inner_width) // 2, (spec.height - inner_height) // 2
        boxed = np.zeros((spec.height, spec.width, 3), dtype=np.uint8)
        boxed[top : top + inner_height, left : left + inner_width] = inner
        return boxed
    return _resampled(image, spec.height, spec.width, visible_box(height, width, spec), spec.interpolation)


def _resampled(
    image: Pixels, to_height: int, to_width: int, box: tuple[float, float, float, float], interpolation: Interpolation
) -> Pixels:
    """Crop a box from an image and resize it, horizontally first and then vertically.

    Each pass rounds to 8 bits. Pillow 13 starts vertically for tall images and earlier versions never do, so both
    passes are explicit. The browser code uses the same order.
    """
    height = image.shape[0]
    left, top, right, bottom = box
    kind = _FILTERS[interpolation]
    across = Image.fromarray(image).resize((to_width, height), kind, box=(left, 0, right, height))
    return np.asarray(across.resize((to_width, to_height), kind, box=(0, top, to_width, bottom)))


def _inner_size(height: int, width: int, spec: ImageInput) -> tuple[int, int]:
    """Return the height and width of an image inside its letterbox, in pixels."""
    scale = min(spec.height / height, spec.width / width)
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))
