"""Features that are kept as tokens, `[N, T, C]`: which of them lie over the picture, and where they still matter.

A transformer's class token has lost sight of the picture's tokens behind the last attention, and a projection inside an
attention is none of its features. So the tokens to look at are the last ones that move the logits when the picture's
tokens among them are changed, and that no dense layer gave: what goes into the last attention, or what is averaged. It
is the choice that `kdedge_export.saliency` makes from a model's source.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from kdedge_export.layout import Layout
from kdedge_export.onnx_node import WEIGHTED
from kdedge_export.surgery.places import Places, follow_places
from kdedge_export.surgery.port import Port
from kdedge_export.surgery.view import Array, GraphView, Probe, run_graph, shapes_of, subgraphs

__all__ = ["Tokens", "find_tokens", "has_weights", "last_tokens"]

_STAYS = {
    *("Identity", "Cast", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Dropout", "Split", "Slice", "Gather"),
    *("Add", "Mul", "Div", "QuantizeLinear", "DequantizeLinear"),
}
"""What a dense layer's result goes through and remains a projection: another arrangement or part, bias and scale."""
_FLOATS = ("float32", "float16")
_DECIMALS, _APART = 4, 1e-3
"""To which places are told apart."""
_LEAST_CHANGE = 1e-6
"""Of the logits, relative to the largest: below it is rounding."""


@dataclass(frozen=True)
class Tokens:
    """The tensors of a graph whose tokens lie over the picture."""

    layouts: Mapping[str, Layout]
    shapes: Mapping[str, tuple[int, ...]]
    """Of all tensors on the way from the image to the logits, in an example run."""

    def planes(self, layout: Layout) -> str | None:
        """The first tensor `[N, C, h, w]` with these cells."""
        size = (layout.height, layout.width)
        return next((name for name, shape in self.shapes.items() if len(shape) == 4 and shape[2:] == size), None)


def find_tokens(view: GraphView, port: Port, logits: str, feed: Mapping[str, Array], name: str) -> Tokens:
    """Follow the image's places to all tensors of three axes.

    Args:
        view: the graph.
        port: its image input.
        logits: the tensor where the way ends.
        feed: an example.
        name: what messages call the graph.
    """
    feed = {item: value[: port.shape[0] or 1] for item, value in feed.items()}
    path = [at for at in view.between(port.name, logits) if "Sequence" not in view.nodes[at].op_type]
    made = [item for at in path if not subgraphs(view.nodes[at]) for item in view.nodes[at].output if item]
    shapes = shapes_of(view.model, made, feed, name)
    read = {item for at in path for item in view.nodes[at].input if item} - shapes.keys() - feed.keys()
    constants = {item: value for item in read if (value := view.value(item)) is not None}
    held = constants | run_graph(view.model, sorted(read - constants.keys()), feed, name)
    # Of what the image decides only the shapes matter.
    values = {item: np.broadcast_to(np.float32(0), shape) for item, shape in shapes.items()}
    wanted = [item for item, shape in shapes.items() if len(shape) == 3 and shape[0] == len(feed[port.name])]
    places = follow_places(view, feed | held | values, port, path, wanted)
    layouts = {item: layout for item in wanted if item in places and (layout := _layout(places[item])) is not None}
    return Tokens(layouts, shapes)


def _layout(places: Places) -> Layout | None:
    """Of tokens that are the picture's cells, row by row, behind those that are of no cell; None of any other."""
    rows, columns = places.rows[0], places.columns[0]
    if any(
        not np.array_equal(item, np.broadcast_to(item[:, :1], item.shape), equal_nan=True) for item in (rows, columns)
    ):
        return None  # channels differ
    rows, columns = rows[:, 0], columns[:, 0]
    prefix = int(np.argmin(np.isnan(rows)))
    vertical, horizontal = (np.unique(np.round(item[prefix:], _DECIMALS)) for item in (rows, columns))
    height, width = len(vertical), len(horizontal)
    if min(height, width) < 2 or height * width != len(rows) - prefix:
        return None
    expected = np.repeat(vertical, width), np.tile(horizontal, height)
    is_grid = all(
        np.allclose(item[prefix:], at, atol=_APART) for item, at in zip((rows, columns), expected, strict=True)
    )
    return Layout("tokens", height, width, prefix) if is_grid else None


def last_tokens(
    view: GraphView,
    told: Tokens,
    cuts: Iterable[str],
    logits: str,
    feed: Mapping[str, Array],
    name: str,
    *,
    is_cut: bool,
) -> str | None:
    """The last tokens whose cells move the logits; None where there are none.

    Args:
        view: the graph.
        told: its tokens.
        cuts: the tensors that all of the answer goes through, in order.
        logits: the tensor where the way ends.
        feed: an example.
        name: what messages call the graph.
        is_cut: ask for tokens that all of the answer goes through.
    """
    found = _last_that_moves(view, told, [item for item in cuts if item in told.layouts], logits, feed, name)
    if found is None or is_cut:
        return found
    behind = [item for at in view.between(found, logits) for item in view.nodes[at].output if item in told.layouts]
    return _last_that_moves(view, told, [found, *behind], logits, feed, name)


def has_weights(view: GraphView, tensor: str, logits: str) -> bool:
    """Whether weights come between a tensor and the logits."""
    weighted = (view.nodes[at] for at in view.between(tensor, logits) if view.nodes[at].op_type in WEIGHTED)
    return any(view.is_weight(item) for node in weighted for item in node.input)


def _last_that_moves(
    view: GraphView, told: Tokens, tensors: list[str], logits: str, feed: Mapping[str, Array], name: str
) -> str | None:
    tensors = [item for item in tensors if not _is_projection(view, item) and has_weights(view, item, logits)]
    if not tensors:
        return None
    outside = {item: _read_from_outside(view, item, logits) for item in tensors}
    read = set(tensors).union(*outside.values())
    held = dict(feed) | {item: value for item in read if (value := view.value(item)) is not None}
    held |= run_graph(view.model, sorted(read - held.keys()), feed, name)
    for tensor in reversed(tensors):
        layout, value = told.layouts[tensor], held[tensor]
        if value.dtype.name not in _FLOATS:
            continue
        tail = _tail(view, tensor, logits, {item: held[item] for item in {tensor, *outside[tensor]}}, name)
        spread = np.random.default_rng(0).normal(scale=float(value.astype(np.float64).std()) or 1.0, size=value.shape)
        spread[:, : layout.prefix] = 0
        before, after = (tail({tensor: x.astype(value.dtype)})[logits] for x in (value, value + spread))
        if np.abs(after - before).max() > _LEAST_CHANGE * max(float(np.abs(before).max()), 1e-12):
            return tensor
    return None


def _read_from_outside(view: GraphView, tensor: str, logits: str) -> set[str]:
    """What the nodes behind a tensor read that does not depend on it."""
    path = [view.nodes[at] for at in view.between(tensor, logits)]
    inside = {tensor}.union(*(node.output for node in path))
    return {item for node in path for item in view.taken(node)} - inside


def _tail(view: GraphView, tensor: str, logits: str, held: Mapping[str, Array], name: str) -> Probe:
    """The graph behind a tensor by itself; all else that it reads stays as it is held."""
    kind = helper.np_dtype_to_tensor_dtype(held[tensor].dtype)
    graph = helper.make_graph(
        [view.nodes[at] for at in view.between(tensor, logits)],
        "tail",
        [helper.make_tensor_value_info(tensor, kind, [None] * held[tensor].ndim)],
        [onnx.ValueInfoProto(name=logits)],
        [numpy_helper.from_array(np.asarray(held[item]), item) for item in sorted(held.keys() - {tensor})],
    )
    model = helper.make_model(graph, opset_imports=view.model.opset_import, ir_version=view.model.ir_version)
    return Probe(model, [logits], name)


def _is_projection(view: GraphView, tensor: str) -> bool:
    """Whether a product gave a tensor, as it did the queries, keys, values and scores of an attention."""
    node = view.maker(tensor)
    while node is not None and node.op_type not in {*WEIGHTED, "Softmax"}:
        varying = [item for item in node.input if item in view.varying]
        if node.op_type not in _STAYS or len(varying) != 1:
            return False
        node = view.maker(varying[0])
    return node is not None
