"""Where in the picture the values of a graph's tensors are from.

A convolutional network keeps its cells in two axes of a tensor. Transformers keep them as tokens, as rows, or by
window, with tokens beside them that are of no cell, and a shape alone does not tell which is which. So the places are
followed from the image through the graph: what moves values moves their places, what works on each value leaves them,
and what mixes some values gives them the middle of their places. What mixes values of the whole picture has no place.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from kdedge_export.onnx_graph.graph_index import Array, GraphView
from kdedge_export.onnx_graph.graph_input import Port
from kdedge_export.onnx_graph.node_attributes import attributes

__all__ = ["Places", "follow_places"]

Coordinates = NDArray[np.float32]
"""Of the values of a tensor, in its shape: 0 is one edge of the picture, 1 the other, NaN no place."""

_RESHAPES = {"Reshape", "Flatten", "Squeeze", "Unsqueeze"}
_MOVES = {"Transpose", "Slice", "Split", "Concat", "Gather", "Expand", "Tile", "DepthToSpace", "SpaceToDepth"}
_WINDOWED = {
    *("Conv", "ConvTranspose", "ConvInteger", "QLinearConv", "MaxPool", "AveragePool", "LpPool", "Resize", "Upsample"),
}
_REDUCES = "Reduce"
_UNKNOWN = {"Einsum", "Reverse", "GatherND", "GatherElements", "Compress", "Scan", "Loop", "If"}
"""They may keep a shape and move values all the same."""


@dataclass(frozen=True)
class Places:
    """Rows and columns of a tensor's values in the picture."""

    rows: Coordinates
    columns: Coordinates

    @classmethod
    def nowhere(cls, shape: tuple[int, ...]) -> "Places":
        """Of values that no place is known of."""
        return cls(np.full(shape, np.nan, np.float32), np.full(shape, np.nan, np.float32))

    @classmethod
    def regular(cls, shape: tuple[int, ...], vertical: int, horizontal: int) -> "Places":
        """Of a tensor with an axis from top to bottom and one from left to right."""

        def along(axis: int) -> Coordinates:
            centres = (np.arange(shape[axis], dtype=np.float32) + 0.5) / shape[axis]
            return np.broadcast_to(centres.reshape([-1] + [1] * (len(shape) - 1 - axis)), shape)

        return cls(along(vertical), along(horizontal))._if_apart()

    def moved(self, change: Callable[[Coordinates], Array]) -> "Places":
        """After a change that takes rows and columns alike."""
        return Places(change(self.rows), change(self.columns))

    def mixed(self, axes: tuple[int, ...]) -> "Places":
        """Of values that are each made of all along some axes, which stay with size 1."""
        return self.moved(lambda values: _mean(values, axes))._if_apart()

    def spread(self, shape: tuple[int, ...]) -> "Places":
        """Broadcast to a shape; nowhere if that cannot be."""
        try:
            return self.moved(lambda values: np.broadcast_to(values, shape))
        except ValueError:
            return Places.nowhere(shape)

    def filled(self, other: "Places") -> "Places":
        """With another's places where these values have none."""
        missing = np.isnan(self.rows)
        if not missing.any():
            return self
        return Places(np.where(missing, other.rows, self.rows), np.where(missing, other.columns, self.columns))

    @cached_property
    def are_known(self) -> bool:
        """Whether any value has one."""
        return not bool(np.isnan(_once(self.rows)).all())

    @property
    def are_planes(self) -> bool:
        """Whether the last two of four axes go down and across the picture."""
        return self.rows.ndim == 4 and _runs_along(_once(self.rows), 2) and _runs_along(_once(self.columns), 3)

    def _if_apart(self) -> "Places":
        """Unless all are the same: the middle of everything is no place."""
        rows, columns = (values[~np.isnan(values)] for values in map(_once, (self.rows, self.columns)))
        if not rows.size or max(np.ptp(rows), np.ptp(columns)) > _SAME:
            return self
        return Places.nowhere(self.rows.shape)


_SAME = 1e-4
"""Places that differ by less are one."""


def _once(values: Coordinates) -> Coordinates:
    """Without what is repeated along an axis in memory, as all is in regular places: that axis has size 1."""
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


def follow_places(
    view: GraphView, values: Mapping[str, Array], port: Port, path: list[int], wanted: Iterable[str]
) -> dict[str, Places]:
    """The places of some tensors' values for one picture.

    Args:
        view: the graph.
        values: what all tensors that the path reads and makes held in a run; only shapes and constants matter.
        port: the image.
        path: nodes from the image on, in order.
        wanted: tensors of the path.
    """
    wanted = set(wanted)
    last_use = {name: at for at in path for name in view.nodes[at].input}
    shape = values[port.name].shape
    vertical = 1 if port.layout == "NHWC" else 2
    held = {port.name: Places.regular(shape, vertical, vertical + 1)}
    found: dict[str, Places] = {}
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
    node: onnx.NodeProto, held: Mapping[str, Places], values: Mapping[str, Array], opset: int
) -> tuple[Places, ...]:
    """The places of a node's outputs."""
    shapes = [values[name].shape for name in node.output if name in values]
    given = [held.get(name) for name in node.input]
    known = [places for places in given if places is not None and places.are_known]
    kind = node.op_type
    if len(shapes[0]) == 4 and (kind == "Col2Im" or (kind == "Conv" and not known)):
        return (Places.regular(shapes[0], 2, 3),)  # they work on planes, however these came about
    if not known or kind in _UNKNOWN:
        return tuple(map(Places.nowhere, shapes))
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
    # Elementwise and normalising operators: one that is as large as the result knows more than one that is repeated.
    whole = sorted(known, key=lambda places: places.rows.shape != shapes[0])
    result = whole[0].spread(shapes[0])
    for places in whole[1:]:
        result = result.filled(places.spread(shapes[0]))
    return (result, *map(Places.nowhere, shapes[1:]))


def _moved(
    node: onnx.NodeProto, given: list[Places | None], values: Mapping[str, Array], opset: int
) -> tuple[Places, ...]:
    """The operator itself, run on rows and on columns."""
    evaluator = ReferenceEvaluator(node, opsets={"": opset})
    moving = len(node.input) if node.op_type == "Concat" else 1
    constants = {name: values[name] for name in node.input[moving:] if name}

    def run(of: Callable[[Places], Coordinates]) -> list[Coordinates]:
        feeds = dict(constants)
        for name, places in zip(node.input[:moving], given, strict=False):
            feeds[name] = of(places if places is not None else Places.nowhere(values[name].shape))
        return [np.asarray(result, dtype=np.float32) for result in evaluator.run(None, feeds)]

    return tuple(
        Places(rows, columns) for rows, columns in zip(run(lambda p: p.rows), run(lambda p: p.columns), strict=True)
    )


def _padded(node: onnx.NodeProto, places: Places, values: Mapping[str, Array], shape: tuple[int, ...]) -> Places:
    """In the middle of values that are of no place."""
    listed = values[node.input[1]].tolist() if len(node.input) > 1 else list(attributes(node).get("pads", []))
    rank = places.rows.ndim
    if len(listed) != 2 * rank or min(listed) < 0:
        return Places.nowhere(shape)
    around = list(zip(listed[:rank], listed[rank:], strict=True))
    return places.moved(lambda coordinates: np.pad(coordinates, around, constant_values=np.nan))


def _multiplied(node: onnx.NodeProto, held: Mapping[str, Places], shape: tuple[int, ...]) -> Places:
    """A row of the left is mixed along its last axis; if that has no place, a column of the right.

    So what attention gathers for a query is where the query is, of `softmax(Q Kᵀ) V` and of `Q (Kᵀ V)` alike.
    """
    if attributes(node).get("transA", 0):
        return Places.nowhere(shape)
    for name, axis in zip(node.input[:2], (-1, -2), strict=False):
        places = held.get(name)
        if places is not None and places.are_known and places.rows.ndim >= 2:
            mixed = places.mixed((axis,))
            if mixed.are_known:
                return mixed.spread(shape)
    return Places.nowhere(shape)


def _windowed(node: onnx.NodeProto, places: Places, values: Mapping[str, Array], shape: tuple[int, ...]) -> Places:
    """Cells of planes are at regular places again; a convolution of single cells works anywhere."""
    if node.op_type == "Conv":
        given = attributes(node)
        is_pointwise = set(values[node.input[1]].shape[2:]) == {1}
        if is_pointwise and set(given.get("strides", [1])) == {1} and not any(given.get("pads", [])):
            return places.mixed((1,)).spread(shape)
    return Places.regular(shape, 2, 3) if places.are_planes and len(shape) == 4 else Places.nowhere(shape)


def _reduced(places: Places, shape: tuple[int, ...]) -> Places:
    """Over the axes that shrank; one that is gone altogether is told by its size."""
    full = places.rows.shape
    if len(shape) == len(full):
        return places.mixed(tuple(axis for axis in range(len(full)) if shape[axis] != full[axis]))
    kept: list[int] = []
    for axis, size in enumerate(full):
        if len(kept) < len(shape) and size == shape[len(kept)]:
            kept.append(axis)
    if len(kept) != len(shape):
        return Places.nowhere(shape)
    mixed = places.mixed(tuple(axis for axis in range(len(full)) if axis not in kept))
    return mixed.moved(lambda values: values.reshape(shape))
