"""Image coordinates of the values of a graph's tensors.

A convolutional network stores spatial positions in two axes of a tensor. Transformers store them as tokens, rows, or
windows, with tokens that have no position, and a shape alone does not identify them. Coordinates are therefore
propagated from the image through the graph. Operators that move values move their coordinates, elementwise operators
keep them, and operators that mix values average them. Values mixed over the whole image have no position.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from kdedge_export.onnx_graph.graph_index import Array, GraphIndex
from kdedge_export.onnx_graph.graph_input import GraphInput
from kdedge_export.onnx_graph.node_attributes import attributes

__all__ = ["TensorCoordinates", "track_coordinates"]

Coordinates = NDArray[np.float32]
"""Coordinates of a tensor's values, in its shape: 0 and 1 are opposite edges of the image, NaN is not a position."""

_RESHAPES = {"Reshape", "Flatten", "Squeeze", "Unsqueeze"}
_MOVES = {"Transpose", "Slice", "Split", "Concat", "Gather", "Expand", "Tile", "DepthToSpace", "SpaceToDepth"}
_WINDOWED = {
    *("Conv", "ConvTranspose", "ConvInteger", "QLinearConv", "MaxPool", "AveragePool", "LpPool", "Resize", "Upsample"),
}
_REDUCES = "Reduce"
_UNKNOWN = {"Einsum", "Reverse", "GatherND", "GatherElements", "Compress", "Scan", "Loop", "If"}
"""Operators that may keep a shape but move values."""


@dataclass(frozen=True)
class TensorCoordinates:
    """Row and column coordinates of a tensor's values in the image."""

    rows: Coordinates
    columns: Coordinates

    @classmethod
    def nowhere(cls, shape: tuple[int, ...]) -> "TensorCoordinates":
        """Return coordinates of values without a position."""
        return cls(np.full(shape, np.nan, np.float32), np.full(shape, np.nan, np.float32))

    @classmethod
    def regular(cls, shape: tuple[int, ...], vertical: int, horizontal: int) -> "TensorCoordinates":
        """Return coordinates of a tensor with a vertical and a horizontal axis."""

        def along(axis: int) -> Coordinates:
            centers = (np.arange(shape[axis], dtype=np.float32) + 0.5) / shape[axis]
            return np.broadcast_to(centers.reshape([-1] + [1] * (len(shape) - 1 - axis)), shape)

        return cls(along(vertical), along(horizontal))._if_apart()

    def moved(self, change: Callable[[Coordinates], Array]) -> "TensorCoordinates":
        """Apply a change to rows and columns alike."""
        return TensorCoordinates(change(self.rows), change(self.columns))

    def mixed(self, axes: tuple[int, ...]) -> "TensorCoordinates":
        """Average over axes, which are kept with size 1."""
        return self.moved(lambda values: _mean(values, axes))._if_apart()

    def spread(self, shape: tuple[int, ...]) -> "TensorCoordinates":
        """Broadcast to a shape; no positions if that is impossible."""
        try:
            return self.moved(lambda values: np.broadcast_to(values, shape))
        except ValueError:
            return TensorCoordinates.nowhere(shape)

    def filled(self, other: "TensorCoordinates") -> "TensorCoordinates":
        """Fill missing coordinates from another instance."""
        missing = np.isnan(self.rows)
        if not missing.any():
            return self
        return TensorCoordinates(
            np.where(missing, other.rows, self.rows), np.where(missing, other.columns, self.columns)
        )

    @cached_property
    def are_known(self) -> bool:
        """True if any value has a position."""
        return not bool(np.isnan(_once(self.rows)).all())

    @property
    def are_planes(self) -> bool:
        """True if the last two of four axes are vertical and horizontal."""
        return self.rows.ndim == 4 and _runs_along(_once(self.rows), 2) and _runs_along(_once(self.columns), 3)

    def _if_apart(self) -> "TensorCoordinates":
        """Return self, or no positions if all coordinates are equal, as after a global mean."""
        rows, columns = (values[~np.isnan(values)] for values in map(_once, (self.rows, self.columns)))
        if not rows.size or max(np.ptp(rows), np.ptp(columns)) > _SAME:
            return self
        return TensorCoordinates.nowhere(self.rows.shape)


_SAME = 1e-4
"""Largest difference of equal coordinates."""


def _once(values: Coordinates) -> Coordinates:
    """Reduce axes repeated in memory (stride 0), as in regular coordinates, to size 1."""
    return values[tuple(slice(None) if step else slice(1) for step in values.strides)]


def _mean(values: Coordinates, axes: tuple[int, ...]) -> Coordinates:
    known = ~np.isnan(values)
    count = known.sum(axis=axes, keepdims=True)
    total = np.where(known, values, 0).sum(axis=axes, keepdims=True, dtype=np.float64)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)


def _runs_along(values: Coordinates, axis: int) -> bool:
    others = tuple(other for other in range(4) if other != axis)
    profile = _mean(values, others)
    deviation = np.abs(values - profile)
    if np.nanmax(deviation, initial=0.0) > _SAME:
        return False
    steps = np.diff(profile.ravel()[~np.isnan(profile.ravel())])
    return bool((steps > 0).all()) and len(steps) > 0


def track_coordinates(
    view: GraphIndex, values: Mapping[str, Array], port: GraphInput, path: list[int], wanted: Iterable[str]
) -> dict[str, TensorCoordinates]:
    """Propagate coordinates to some tensors for one image.

    Args:
        view: the graph.
        values: values of all tensors on the path in a run; only shapes and constants matter.
        port: the image input.
        path: nodes from the image, in order.
        wanted: tensors of the path.
    """
    wanted = set(wanted)
    last_use = {name: at for at in path for name in view.nodes[at].input}
    shape = values[port.name].shape
    vertical = 1 if port.layout == "NHWC" else 2
    held = {port.name: TensorCoordinates.regular(shape, vertical, vertical + 1)}
    found: dict[str, TensorCoordinates] = {}
    for at in path:
        node = view.nodes[at]
        made = _after(node, held, values, view.opset)
        for name, places in zip(node.output, made, strict=False):
            if name in wanted:
                found[name] = places
            held[name] = places
        for name in {*node.input, *node.output}:
            if last_use.get(name, -1) <= at:
                held.pop(name, None)
    return found


def _after(
    node: onnx.NodeProto, held: Mapping[str, TensorCoordinates], values: Mapping[str, Array], opset: int
) -> tuple[TensorCoordinates, ...]:
    """Return the coordinates of a node's outputs."""
    shapes = [values[name].shape for name in node.output if name in values]
    given = [held.get(name) for name in node.input]
    known = [places for places in given if places is not None and places.are_known]
    kind = node.op_type
    if len(shapes[0]) == 4 and (kind == "Col2Im" or (kind == "Conv" and not known)):
        return (TensorCoordinates.regular(shapes[0], 2, 3),)  # they operate on planes, however these were produced
    if not known or kind in _UNKNOWN:
        return tuple(map(TensorCoordinates.nowhere, shapes))
    if kind in _RESHAPES:
        return (known[0].moved(lambda places: places.reshape(shapes[0])),)
    if kind in _MOVES:
        return _moved(node, given, values, opset)
    if kind == "Pad":
        return (_padded(node, known[0], values, shapes[0]),)
    if kind in ("MatMul", "Gemm", "MatMulInteger", "QLinearMatMul"):
        return (_multiplied(node, held, shapes[0]),)
    if kind in _WINDOWED:
        return (_windowed(node, known[0], values, shapes[0]),)
    if kind.startswith(_REDUCES) or kind.startswith("Global"):
        return (_reduced(known[0], shapes[0]),)
    # Elementwise and normalization operators: operands of the output's shape come before broadcast ones.
    whole = sorted(known, key=lambda places: places.rows.shape != shapes[0])
    result = whole[0].spread(shapes[0])
    for places in whole[1:]:
        result = result.filled(places.spread(shapes[0]))
    return (result, *map(TensorCoordinates.nowhere, shapes[1:]))


def _moved(
    node: onnx.NodeProto, given: list[TensorCoordinates | None], values: Mapping[str, Array], opset: int
) -> tuple[TensorCoordinates, ...]:
    """Run the operator itself on rows and columns."""
    evaluator = ReferenceEvaluator(node, opsets={"": opset})
    moving = len(node.input) if node.op_type == "Concat" else 1
    constants = {name: values[name] for name in node.input[moving:] if name}

    def run(of: Callable[[TensorCoordinates], Coordinates]) -> list[Coordinates]:
        feeds = dict(constants)
        for name, places in zip(node.input[:moving], given, strict=False):
            feeds[name] = of(places if places is not None else TensorCoordinates.nowhere(values[name].shape))
        return [np.asarray(result, dtype=np.float32) for result in evaluator.run(None, feeds)]

    return tuple(
        TensorCoordinates(rows, columns)
        for rows, columns in zip(run(lambda p: p.rows), run(lambda p: p.columns), strict=True)
    )


def _padded(
    node: onnx.NodeProto, places: TensorCoordinates, values: Mapping[str, Array], shape: tuple[int, ...]
) -> TensorCoordinates:
    """Pad with values without a position."""
    listed = values[node.input[1]].tolist() if len(node.input) > 1 else list(attributes(node).get("pads", []))
    rank = places.rows.ndim
    if len(listed) != 2 * rank or min(listed) < 0:
        return TensorCoordinates.nowhere(shape)
    around = list(zip(listed[:rank], listed[rank:], strict=True))
    return places.moved(lambda coordinates: np.pad(coordinates, around, constant_values=np.nan))


def _multiplied(
    node: onnx.NodeProto, held: Mapping[str, TensorCoordinates], shape: tuple[int, ...]
) -> TensorCoordinates:
    """Average rows of the left operand over their last axis, or columns of the right one if those have no position.

    The result of an attention thus has the position of its query, for `softmax(Q Kᵀ) V` and for `Q (Kᵀ V)`.
    """
    if attributes(node).get("transA", 0):
        return TensorCoordinates.nowhere(shape)
    for name, axis in zip(node.input[:2], (-1, -2), strict=False):
        places = held.get(name)
        if places is not None and places.are_known and places.rows.ndim >= 2:
            mixed = places.mixed((axis,))
            if mixed.are_known:
                return mixed.spread(shape)
    return TensorCoordinates.nowhere(shape)


def _windowed(
    node: onnx.NodeProto, places: TensorCoordinates, values: Mapping[str, Array], shape: tuple[int, ...]
) -> TensorCoordinates:
    """Return regular coordinates for planes; a pointwise convolution applies anywhere."""
    if node.op_type == "Conv":
        given = attributes(node)
        is_pointwise = set(values[node.input[1]].shape[2:]) == {1}
        if is_pointwise and set(given.get("strides", [1])) == {1} and not any(given.get("pads", [])):
            return places.mixed((1,)).spread(shape)
    return (
        TensorCoordinates.regular(shape, 2, 3)
        if places.are_planes and len(shape) == 4
        else TensorCoordinates.nowhere(shape)
    )


def _reduced(places: TensorCoordinates, shape: tuple[int, ...]) -> TensorCoordinates:
    """Average over the reduced axes; a removed axis is identified by its size."""
    full = places.rows.shape
    if len(shape) == len(full):
        return places.mixed(tuple(axis for axis in range(len(full)) if shape[axis] != full[axis]))
    kept: list[int] = []
    for axis, size in enumerate(full):
        if len(kept) < len(shape) and size == shape[len(kept)]:
            kept.append(axis)
    if len(kept) != len(shape):
        return TensorCoordinates.nowhere(shape)
    mixed = places.mixed(tuple(axis for axis in range(len(full)) if axis not in kept))
    return mixed.moved(lambda values: values.reshape(shape))
