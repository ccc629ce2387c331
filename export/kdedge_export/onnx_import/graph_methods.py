"""Saliency methods as ONNX nodes: functions of the spatial features and the logit's gradient.

Their definitions and sources are in `kdedge_export.saliency.methods`, which needs torch. `DEFAULT` is used unless
another method is named.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from kdedge_export.onnx_graph.builder import NodeBuilder
from kdedge_export.spatial_layout import SpatialLayout
from kdedge_runtime.errors import UsageError
from kdedge_runtime.saliency_methods import methods_of

__all__ = ["DEFAULT", "EPSILON", "MIN_SHARE", "SpatialFeatures", "add_map_nodes", "check_method"]

DEFAULT = "hirescam"
"""Most faithful signed method for every kind of head, as measured; equal to Grad-CAM for global pooling.

ReciproCAM replaces it if an operator has no derivative.
"""
_FLOAT32 = np.dtype(np.float32)
MIN_SHARE = 1e-3
"""Minimum of Grad-CAM++'s denominator relative to its two terms; below, rounding would determine the weight."""
EPSILON = 1e-7
"""Added to XGrad-CAM's denominator, as in pytorch-grad-cam, for channels that are zero everywhere."""
_SQUARINGS = 12
"""Number of squarings of Eigen-CAM's covariance, which reduce the second component by (λ₂/λ₁)^4096."""


def check_method(name: str) -> None:
    """Check that a method is available for `.onnx` files.

    Raises:
        UsageError: it is not.
    """
    if name not in methods_of("onnx"):
        raise UsageError(
            f"--method {name} is not available for .onnx files. Choose one of {', '.join(methods_of('onnx'))}."
        )


@dataclass(frozen=True)
class SpatialFeatures:
    """Features and gradient of the spatial positions as float32 tensors of a graph."""

    builder: NodeBuilder
    layout: SpatialLayout
    channels: int
    features: str
    gradient: str
    """Gradient tensor that broadcasts against the features; unused by Eigen-CAM, and averaged over positions for
    Grad-CAM."""

    def over_positions(self, tensor: str) -> str:
        """Sum over spatial positions, keeping their axes with size 1."""
        return self.builder.reduce("ReduceSum", tensor, self.layout.position_axes, keepdims=True)

    def weighted(self, weights: str) -> str:
        """Multiply the features by weights that broadcast against them, and sum over the channels."""
        product = self.builder.add("Mul", self.features, weights)
        return self.builder.reduce("ReduceSum", product, [self.layout.channel_axis], keepdims=False)

    def number(self, value: float) -> str:
        """Add a float32 scalar."""
        return self.builder.number(value, _FLOAT32)


def add_map_nodes(method: str, positions: SpatialFeatures) -> str:
    """Add the nodes of a method.

    Returns:
        The map tensor, float32 `[N, h, w]`, or `[N, h·w]` for tokens.
    """
    return _NODES[method](positions)


def _by_gradient(positions: SpatialFeatures) -> str:
    return positions.weighted(positions.gradient)


def _layercam(positions: SpatialFeatures) -> str:
    return positions.weighted(positions.builder.add("Relu", positions.gradient))


def _xgradcam(positions: SpatialFeatures) -> str:
    add = positions.builder.add
    total = add("Add", positions.over_positions(positions.features), positions.number(EPSILON))
    shares = add("Div", positions.features, total)
    return positions.weighted(positions.over_positions(add("Mul", shares, positions.gradient)))


def _gradcam_plus_plus(positions: SpatialFeatures) -> str:
    add, number = positions.builder.add, positions.number
    product = add("Mul", positions.over_positions(positions.features), positions.gradient)
    denominator = add("Add", product, number(2.0))
    size = add("Add", add("Abs", product), number(2.0))
    is_sound = add("Greater", add("Abs", denominator), add("Mul", size, number(MIN_SHARE)))
    inverse = add("Reciprocal", add("Where", is_sound, denominator, number(1.0)))
    shares = add("Mul", add("Where", is_sound, inverse, number(0.0)), add("Relu", positions.gradient))
    everywhere = add("Expand", shares, add("Shape", positions.features))
    return positions.weighted(positions.over_positions(everywhere))


def _eigencam(positions: SpatialFeatures) -> str:
    builder, add, number = positions.builder, positions.builder.add, positions.number
    layout, channels = positions.layout, positions.channels
    last = add("Transpose", positions.features, perm=[0, 2, 3, 1]) if layout.kind == "NCHW" else positions.features
    rows = builder.reshape(last, [0, -1, channels])
    rows = add("Sub", rows, builder.reduce("ReduceMean", rows, [1], keepdims=True))
    power = add("MatMul", add("Transpose", rows, perm=[0, 2, 1]), rows)
    diagonal = builder.constant(np.eye(channels, dtype=np.float32))
    for _ in range(_SQUARINGS):
        trace = builder.reduce("ReduceSum", add("Mul", power, diagonal), [1, 2], keepdims=True)
        power = add("Div", power, add("Add", trace, number(1e-30)))
        power = add("MatMul", power, power)
    # The power approaches λ u uᵀ, whose largest column is u.
    sizes = builder.reduce("ReduceSum", add("Mul", power, power), [1], keepdims=False)
    off_on = builder.constant(np.array([0, 1], dtype=np.float32))
    depth = builder.constant(np.array([channels], dtype=np.int64))
    chosen = add("OneHot", add("ArgMax", sizes, axis=1, keepdims=0), depth, off_on)
    direction = add("MatMul", power, builder.reshape(chosen, [-1, channels, 1]))
    square = builder.reduce("ReduceSum", add("Mul", direction, direction), [1], keepdims=True)
    direction = add("Div", direction, add("Add", add("Sqrt", square), number(1e-30)))
    projection = add("MatMul", rows, direction)
    least, most = (
        add("Abs", builder.reduce(kind, projection, [1], keepdims=True)) for kind in ("ReduceMin", "ReduceMax")
    )
    projection = add("Where", add("Greater", least, most), add("Neg", projection), projection)
    if layout.kind == "tokens":
        return builder.reshape(projection, [0, -1])
    like = builder.reduce("ReduceSum", positions.features, [layout.channel_axis], keepdims=False)
    return builder.reshape_as(projection, like)


_NODES: Mapping[str, Callable[[SpatialFeatures], str]] = {
    "gradcam": _by_gradient,
    "gradcam++": _gradcam_plus_plus,
    "hirescam": _by_gradient,
    "layercam": _layercam,
    "xgradcam": _xgradcam,
    "eigencam": _eigencam,
}
