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

from kdedge_export.layout import Layout, grids_below, layout_of
from kdedge_export.surgery.pooling import pooled_axes
from kdedge_export.surgery.port import Port
from kdedge_export.surgery.view import Array, GraphView, Probe, attributes, run_graph, shapes_of, subgraphs

__all__ = ["WEIGHTED", "TokenShapes", "has_weights", "last_tokens", "token_shapes"]

WEIGHTED = {"Conv", "Gemm", "MatMul"}
_STAYS = {
    *("Identity", "Cast", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Dropout", "Split", "Slice", "Gather"),
    *("Add", "Mul", "Div", "QuantizeLinear", "DequantizeLinear"),
}
"""What a dense layer's result goes through and remains a projection: another arrangement or part, bias and scale."""
_FLOATS = ("float32", "float16")
_LEAST_CHANGE = 1e-5
"""Of the logits, relative to the largest: below it is rounding."""


@dataclass(frozen=True)
class TokenShapes:
    """What the shapes of a graph's tensors tell of its tokens."""

    shapes: Mapping[str, tuple[int, ...]]
    """Of all tensors on the way from the image to the logits, in an example run."""
    images: int
    """Of the example run."""
    grids: frozenset[tuple[int, int]]
    """The resolutions that the graph may work at."""
    prefixes: frozenset[tuple[int, int]]
    """How many tokens there are where cells were appended to others, and how many of those come first."""

    def layout(self, tensor: str) -> Layout | None:
        """Of a tensor of tokens; None where its tokens do not lie over the picture."""
        shape = self.shapes.get(tensor, ())
        is_sequence = len(shape) == 3 and shape[0] == self.images  # heads are multiples of it
        found = layout_of(shape, self.grids) if is_sequence else None
        is_known = found is not None and (not found.prefix or (shape[1], found.prefix) in self.prefixes)
        return found if is_known else None

    def planes(self, layout: Layout) -> str | None:
        """The first tensor `[N, C, h, w]` with these cells."""
        size = (layout.height, layout.width)
        return next((name for name, shape in self.shapes.items() if len(shape) == 4 and shape[2:] == size), None)


def token_shapes(view: GraphView, port: Port, logits: str, feed: Mapping[str, Array], name: str) -> TokenShapes:
    """Run an example through the graph and note its shapes.

    Args:
        view: the graph.
        port: its image input.
        logits: the tensor where the way ends.
        feed: the example.
        name: what messages call the graph.
    """
    path = [view.nodes[at] for at in view.between(port.name, logits)]
    path = [node for node in path if "Sequence" not in node.op_type and not subgraphs(node)]
    concats = [node for node in path if node.op_type == "Concat"]
    tensors = [item for node in path for item in node.output if item] + [
        item for node in concats for item in node.input
    ]
    shapes = shapes_of(view.model, dict.fromkeys(tensors), feed, name)
    seen = [shapes[node.output[0]][2:] for node in path if node.op_type in ("Conv", "MaxPool")]
    grids = grids_below((size[0], size[1]) for size in seen if len(size) == 2) or _patches(feed[port.name].shape, port)
    prefixes: set[tuple[int, int]] = set()
    for node in concats:
        total = shapes[node.output[0]]
        if len(total) == 3 and attributes(node)["axis"] % 3 == 1:
            starts = np.cumsum([0, *(shapes[item][1] for item in node.input)])
            prefixes.update((total[1], int(start)) for start in starts[1:-1])
    return TokenShapes(shapes, len(feed[port.name]), grids, frozenset(prefixes))


def _patches(shape: tuple[int, ...], port: Port) -> frozenset[tuple[int, int]]:
    """The grids that square patches cut an image into, where no convolution does it."""
    height, width = shape[1:3] if port.layout == "NHWC" else shape[2:]
    sides = range(2, min(height, width) // 2 + 1)
    return frozenset((height // side, width // side) for side in sides if not height % side and not width % side)


def last_tokens(
    view: GraphView,
    told: TokenShapes,
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
        told: of its shapes.
        cuts: the tensors that all of the answer goes through, in order.
        logits: the tensor where the way ends.
        feed: an example.
        name: what messages call the graph.
        is_cut: ask for tokens that all of the answer goes through.
    """
    found = _last_that_moves(view, told, [item for item in cuts if told.layout(item)], logits, feed, name)
    if found is None or is_cut:
        return found
    behind = [item for at in view.between(found, logits) for item in view.nodes[at].output if told.layout(item)]
    return _last_that_moves(view, told, [found, *behind], logits, feed, name)


def has_weights(view: GraphView, tensor: str, logits: str) -> bool:
    """Whether weights come between a tensor and the logits."""
    weighted = (view.nodes[at] for at in view.between(tensor, logits) if view.nodes[at].op_type in WEIGHTED)
    return any(view.is_weight(item) for node in weighted for item in node.input)


def _last_that_moves(
    view: GraphView, told: TokenShapes, tensors: list[str], logits: str, feed: Mapping[str, Array], name: str
) -> str | None:
    tensors = [item for item in tensors if not _is_projection(view, item) and not _ends_in_channels(view, item, told)]
    tensors = [item for item in tensors if has_weights(view, item, logits)]
    if not tensors:
        return None
    outside = {item: _read_from_outside(view, item, logits) for item in tensors}
    read = set(tensors).union(*outside.values())
    held = dict(feed) | {item: value for item in read if (value := view.value(item)) is not None}
    held |= run_graph(view.model, sorted(read - held.keys()), feed, name)
    for tensor in reversed(tensors):
        layout, value = told.layout(tensor), held[tensor]
        if layout is None or value.dtype.name not in _FLOATS:
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
    """Whether a dense layer gave a tensor, as it did the queries, keys and values of an attention."""
    node = view.maker(tensor)
    while node is not None and node.op_type not in WEIGHTED:
        varying = [item for item in node.input if item in view.varying]
        if node.op_type not in _STAYS or len(varying) != 1:
            return False
        node = view.maker(varying[0])
    return node is not None and any(view.is_weight(item) for item in node.input[:2])


def _ends_in_channels(view: GraphView, tensor: str, told: TokenShapes) -> bool:
    """Whether the last axis is averaged: then cells are there, and what looks like tokens are channels."""
    takers = {at: view.nodes[at] for at in view.takers.get(tensor, [])}
    if len(takers) != 1:
        return False
    (node,) = takers.values()
    return pooled_axes(view, node, 3, told.shapes.get(node.output[0], ())) == (2,)
