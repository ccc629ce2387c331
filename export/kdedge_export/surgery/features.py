"""The features that a map looks at: the last that still lie over the picture, as planes, rows of cells or tokens."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from kdedge_export.errors import HeadNotSupported
from kdedge_export.layout import Layout
from kdedge_export.onnx_node import attributes
from kdedge_export.surgery.pooling import pooled_axes
from kdedge_export.surgery.port import Port
from kdedge_export.surgery.tokens import Tokens, find_tokens, has_weights, last_tokens
from kdedge_export.surgery.view import Array, GraphView, run_graph

__all__ = ["Features", "find_features", "named_features"]

_ELEMENTWISE = {
    *("Relu", "LeakyRelu", "Clip", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish", "Swish", "Gelu", "Elu", "PRelu"),
    *("Add", "Sub", "Mul", "Div", "Identity", "Cast", "Dropout", "QuantizeLinear", "DequantizeLinear", "Erf", "Concat"),
}
_CHANNELS_FIRST = {
    *("Conv", "ConvTranspose", "BatchNormalization", "MaxPool", "AveragePool", "InstanceNormalization", "LRN"),
    *("GlobalAveragePool", "GlobalMaxPool", "SpaceToDepth", "DepthToSpace"),
}
_FLOATS = ("float32", "float16")


@dataclass(frozen=True)
class Features:
    """A tensor whose cells lie over the picture."""

    tensor: str
    layout: Layout
    """In the example run."""
    planes: str | None = None
    """Of tokens: a tensor `[N, C, h, w]` with the same cells; None where no tensor has them."""


def find_features(
    view: GraphView,
    port: Port,
    cuts: Sequence[str],
    logits: str,
    feed: Mapping[str, Array],
    name: str,
    *,
    is_cut: bool,
) -> Features:
    """The last features that lie over the picture and have weights after them.

    Args:
        view: the graph.
        port: its image input.
        cuts: the tensors that all of the answer goes through, in order.
        logits: the tensor before a softmax at the end.
        feed: an example.
        name: what messages call the graph.
        is_cut: ask for features that all of the answer goes through.

    Raises:
        HeadNotSupported: there are none.
    """
    held = run_graph(view.model, [tensor for tensor in cuts if tensor != port.name], feed, name)
    maps = {tensor: value for tensor, value in held.items() if value.ndim == 4 and value.dtype.name in _FLOATS}
    told = tokens = None
    if any(value.ndim == 3 for value in held.values()):
        told = find_tokens(view, port, logits, feed, name)
        tokens = last_tokens(view, told, list(held), logits, feed, name, is_cut=is_cut)
        if tokens is not None:  # the heads of an attention have four axes too
            size = told.layouts[tokens].height, told.layouts[tokens].width
            maps = {item: x for item, x in maps.items() if size in (x.shape[1:3], x.shape[2:])}
    grid = _last_map(view, maps, logits)
    if told is not None and tokens is not None and (grid is None or view.place(tokens) > view.place(grid)):
        return _of_tokens(told, tokens)
    if grid is None:
        raise HeadNotSupported(
            f"{name} has no features with weights after them that lie over a picture and that the answer depends on: "
            "no [N, C, h, w] or [N, h, w, C] that all of it goes through, and no tokens [N, T, C]"
            f"{_why_no_tokens(held)}. Name a tensor that has: --target-layer TENSOR."
        )
    return _of_map(view, grid, held[grid], name)


def named_features(
    view: GraphView, port: Port, target: str, logits: str, feed: Mapping[str, Array], name: str
) -> Features:
    """The features of a name.

    Args:
        view: the graph.
        port: its image input.
        target: the tensor, or the node that gives it: `kdedge inspect` lists nodes.
        logits: the tensor before a softmax at the end.
        feed: an example.
        name: what messages call the graph.

    Raises:
        HeadNotSupported: there is no such tensor on the way to the logits, or it does not lie over the picture.
    """
    by_node = {node.name: str(node.output[0]) for node in view.nodes if node.name}
    tensor = target if target in view.varying else by_node.get(target, target)
    if tensor not in view.varying or tensor == port.name or not view.between(tensor, logits):
        known = [item for node in view.nodes for item in node.output if item and item in view.varying]
        near = [item for item in known if tensor.lower() in item.lower()] or known
        raise HeadNotSupported(
            f"{name} has no tensor {tensor!r} on the way to its logits. Some that it has: {', '.join(near[-8:])}. "
            "`kdedge inspect` lists all nodes, whose names can be typed too."
        )
    value = run_graph(view.model, [tensor], feed, name)[tensor]
    if value.ndim == 3 and value.dtype.name in _FLOATS:
        told = find_tokens(view, port, logits, feed, name)
        if tensor not in told.layouts:
            raise HeadNotSupported(
                f"{name}: how {tensor} {list(value.shape)} lies over a picture cannot be followed through the graph. "
                "Name tokens [N, T, C] whose T are its cells row by row, after class tokens if there are any."
            )
        return _of_tokens(told, tensor)
    if value.ndim != 4 or not _is_map(value) or value.dtype.name not in _FLOATS:
        raise HeadNotSupported(
            f"{name}: {tensor} is {value.dtype} {list(value.shape)}. "
            "Expected float features [N, C, h, w] or [N, h, w, C], or tokens [N, T, C]."
        )
    return _of_map(view, tensor, value, name)


def _of_tokens(told: Tokens, tensor: str) -> Features:
    layout = told.layouts[tensor]
    return Features(tensor, layout, told.planes(layout))


def _of_map(view: GraphView, tensor: str, value: Array, name: str) -> Features:
    kind = _kind(view, tensor)
    if kind is None:
        raise HeadNotSupported(
            f"{name}: whether {tensor} has its channels first or last cannot be seen in the graph. "
            "Name a tensor that a convolution or pooling gives: --target-layer TENSOR."
        )
    height, width = value.shape[2:] if kind == "NCHW" else value.shape[1:3]
    return Features(tensor, Layout(kind, int(height), int(width)))


def _last_map(view: GraphView, maps: Mapping[str, Array], logits: str) -> str | None:
    for tensor, value in reversed(list(maps.items())):
        if not _is_map(value):
            continue
        if sum(view.nodes[at].op_type == "Softmax" for at in view.between(tensor, logits)) > 1:
            return None  # blocks of attention, in which all cells get to know of each other
        if has_weights(view, tensor, logits):
            return tensor
    return None


def _is_map(value: Array) -> bool:
    """Whether two axes of a 4-D tensor can be height and width."""
    return bool(min(value.shape[2:]) > 1 or min(value.shape[1:3]) > 1)


def _why_no_tokens(held: Mapping[str, Array]) -> str:
    shapes = sorted({f"[N, {value.shape[1]}, {value.shape[2]}]" for value in held.values() if value.ndim == 3})
    return f" whose T are cells of the picture row by row (there are {', '.join(shapes)})" if shapes else ""


def _kind(view: GraphView, target: str) -> Literal["NCHW", "NHWC"] | None:
    for at in view.takers.get(target, []):
        node = view.nodes[at]
        if node.op_type in _CHANNELS_FIRST and node.input[0] == target:
            return "NCHW"
        if node.op_type == "ReduceMean":
            axes = pooled_axes(view, node, 4, ())
            if axes in ((2, 3), (1, 2)):
                return "NCHW" if axes == (2, 3) else "NHWC"
        perm = tuple(attributes(node).get("perm", ())) if node.op_type == "Transpose" else ()
        if perm in ((0, 2, 3, 1), (0, 3, 1, 2)):
            return "NCHW" if perm == (0, 2, 3, 1) else "NHWC"
    tensor = target
    while (node_before := view.maker(tensor)) is not None:
        perm = tuple(attributes(node_before).get("perm", ())) if node_before.op_type == "Transpose" else ()
        if perm in ((0, 2, 3, 1), (0, 3, 1, 2)):
            return "NHWC" if perm == (0, 2, 3, 1) else "NCHW"
        if node_before.op_type in _CHANNELS_FIRST:
            return "NCHW"
        if node_before.op_type == "LayerNormalization":
            return "NHWC"
        if node_before.op_type not in _ELEMENTWISE:
            return None
        tensor = next((item for item in node_before.input if item in view.varying), "")
    return None
