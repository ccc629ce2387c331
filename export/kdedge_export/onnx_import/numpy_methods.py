"""Reference implementations of the saliency methods in numpy, to verify a graph's maps."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from kdedge_export.onnx_graph.graph_index import Array
from kdedge_export.onnx_import.graph_methods import EPSILON, MIN_SHARE
from kdedge_export.spatial_layout import SpatialLayout

__all__ = ["map_by_definition"]

_Positions = NDArray[np.float64]


def map_by_definition(method: str, features: Array, gradient: Array | None, layout: SpatialLayout) -> _Positions:
    """Compute the map of one image from its features and their gradient.

    Args:
        method: an activation-based method, such as `gradcam`.
        features: spatial features, `[1, C, h, w]`, `[1, h, w, C]` or `[1, h·w, C]`.
        gradient: gradient of the explained logit, which broadcasts against the features; None for methods without one.
        layout: layout of the features.

    Returns:
        float64 `[h, w]`.
    """
    positions = _by_channel(features, layout)
    slopes = (
        np.zeros_like(positions)
        if gradient is None
        else np.broadcast_to(_by_channel(gradient, layout), positions.shape)
    )
    return _DEFINITIONS[method](positions, slopes).reshape(layout.height, layout.width)


def _by_channel(tensor: Array, layout: SpatialLayout) -> _Positions:
    first: _Positions = np.moveaxis(tensor.astype(np.float64), layout.channel_axis, 1)[0]
    return first.reshape(len(first), -1)


def _gradcam(features: _Positions, gradient: _Positions) -> _Positions:
    return np.asarray(gradient.mean(axis=1) @ features)


def _gradcam_plus_plus(features: _Positions, gradient: _Positions) -> _Positions:
    product = features.sum(axis=1, keepdims=True) * gradient
    is_sound = np.abs(2 + product) > MIN_SHARE * (2 + np.abs(product))
    shares = np.divide(1.0, 2 + product, out=np.zeros_like(product), where=is_sound)
    return np.asarray((shares * np.maximum(gradient, 0)).sum(axis=1) @ features)


def _hirescam(features: _Positions, gradient: _Positions) -> _Positions:
    return np.asarray((gradient * features).sum(axis=0))


def _layercam(features: _Positions, gradient: _Positions) -> _Positions:
    return np.asarray((np.maximum(gradient, 0) * features).sum(axis=0))


def _xgradcam(features: _Positions, gradient: _Positions) -> _Positions:
    shares = features / (features.sum(axis=1, keepdims=True) + EPSILON)
    return np.asarray((gradient * shares).sum(axis=1) @ features)


def _eigencam(features: _Positions, _: _Positions) -> _Positions:
    rows = (features - features.mean(axis=1, keepdims=True)).T
    projection = rows @ np.linalg.svd(rows, full_matrices=False)[2][0]
    is_flipped = abs(projection.min()) > abs(projection.max())
    return np.asarray(-projection if is_flipped else projection)


_DEFINITIONS: dict[str, Callable[[_Positions, _Positions], _Positions]] = {
    "gradcam": _gradcam,
    "gradcam++": _gradcam_plus_plus,
    "hirescam": _hirescam,
    "layercam": _layercam,
    "xgradcam": _xgradcam,
    "eigencam": _eigencam,
}
"""Functions from features and gradient `[C, h·w]` to the map `[h·w]`."""
