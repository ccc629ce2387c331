"""The features that a map looks at: the last that still lie over the picture, as planes, rows of cells or tokens.

A transformer's class token has lost sight of the picture's tokens behind the last attention, and a projection inside an
attention is none of its features. So they are the last that move the logits when their cells are changed, of those that
all of the answer goes through or that an attention reads: what goes into the last attention, or what is averaged. It
is the choice that `kdedge_export.saliency` makes from a model's source.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kdedge_export.errors import HeadNotSupported
from kdedge_export.onnx_graph.graph_index import FLOATS, Array, GraphView, run_graph
from kdedge_export.onnx_graph.graph_input import Port
from kdedge_export.onnx_graph.spatial.influence import moves_logits
from kdedge_export.onnx_graph.spatial.target_candidates import attentions, find_candidates
from kdedge_export.onnx_graph.spatial.tracker import Followed, follow
from kdedge_export.spatial_layout import Layout

__all__ = ["Features", "find_features", "named_features"]


@dataclass(frozen=True)
class Features:
    """A tensor whose cells lie over the picture."""

    tensor: str
    layout: Layout
    """In the example run."""
    planes: tuple[str, int] | None = None
    """Of tokens: a tensor of four axes with the same cells, and the axis of its height; None where none has them."""


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
    """The last features that lie over the picture, have weights after them and move the logits.

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
    path = view.between(port.name, logits)
    candidates = find_candidates(view, cuts, path)
    followed = follow(view, port, path, candidates.tensors, feed, name)
    tensors = {*candidates.cuts} if is_cut else {*candidates.cuts, *candidates.readers(followed.grid)}
    too_early = ""
    for tensor in sorted(tensors, key=view.place, reverse=True):
        layout = followed.layout(tensor)
        if layout is None:
            continue
        reading = attentions(view, view.between(tensor, logits))
        if len(reading) > 1 and not (is_cut and layout.kind == "tokens"):
            too_early = (
                f" The last that lie over the picture are {tensor}, {layout.height} × {layout.width} cells, and behind "
                f"them {len(reading)} attentions let all cells know of each other."
            )
            break
        if moves_logits(view, tensor, layout, logits, feed, name):
            return _features(followed, tensor, layout)
    raise HeadNotSupported(
        f"{name} has no features with weights after them that lie over a picture and that the answer depends on: "
        "no [N, C, h, w] or [N, h, w, C] that all of it goes through, and no tokens [N, T, C]"
        f"{_why_no_tokens(followed, candidates.cuts)}.{too_early} Name a tensor that has: --target-layer TENSOR."
    )


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
    if value.ndim not in (3, 4) or value.dtype.name not in FLOATS:
        raise HeadNotSupported(
            f"{name}: {tensor} is {value.dtype} {list(value.shape)}. "
            "Expected float features [N, C, h, w] or [N, h, w, C], or tokens [N, T, C]."
        )
    followed = follow(view, port, view.between(port.name, logits), {tensor}, feed, name)
    layout = followed.layout(tensor)
    if layout is None:
        raise HeadNotSupported(
            f"{name}: how {tensor} {list(value.shape)} lies over a picture cannot be followed through the graph. "
            "Name features [N, C, h, w] or [N, h, w, C] of two rows and columns or more, or tokens [N, T, C] whose T "
            "are their cells row by row, after class tokens if there are any."
        )
    return _features(followed, tensor, layout)


def _features(followed: Followed, tensor: str, layout: Layout) -> Features:
    return Features(tensor, layout, followed.planes(layout) if layout.kind == "tokens" else None)


def _why_no_tokens(followed: Followed, cuts: Sequence[str]) -> str:
    rest = {followed.shapes[item][1:] for item in cuts if len(followed.shapes.get(item, ())) == 3}
    shapes = ", ".join(f"[N, {tokens}, {channels}]" for tokens, channels in sorted(rest))
    return f" whose T are cells of the picture row by row (there are {shapes})" if shapes else ""
