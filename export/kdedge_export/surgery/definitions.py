"""The saliency methods in numpy, by their definitions, to hold a graph's maps against."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from kdedge_export.layout import Layout
from kdedge_export.surgery.view import Array

__all__ = ["map_by_definition"]

_Cells = NDArray[np.float64]


def map_by_definition(method: str, features: Array, gradient: Array | None, layout: Layout) -> _Cells:
    """Compute the map of one picture from its features and their gradient.

    Args:
        method: a method of cells, such as `gradcam`.
        features: of the cells alone, `[1, C, h, w]`, `[1, h, w, C]` or `[1, h·w, C]`.
        gradient: the explained logit's, which broadcasts against the features; None for methods without one.
        layout: of the features.

    Returns:
        float64 `[h, w]`.
    """
    cells = _by_channel(features, layout)
    slopes = np.zeros_like(cells) if gradient is None else np.broadcast_to(_by_channel(gradient, layout), cells.shape)
    return _DEFINITIONS[method](cells, slopes).reshape(layout.height, layout.width)


def _by_channel(tensor: Array, layout: Layout) -> _Cells:
    first: _Cells = np.moveaxis(tensor.astype(np.float64), layout.channel_axis, 1)[0]
    return first.reshape(len(first), -1)


def _gradcam(features: _Cells, gradient: _Cells) -> _Cells:
    return np.asarray(gradient.mean(axis=1) @ features)


_DEFINITIONS: dict[str, Callable[[_Cells, _Cells], _Cells]] = {"gradcam": _gradcam}
"""Each takes features and gradient `[C, h·w]` and gives the map `[h·w]`."""
