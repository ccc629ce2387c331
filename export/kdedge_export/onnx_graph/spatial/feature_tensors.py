"""Target features: the last ones with spatial positions, as planes, channels-last planes or tokens.

After the last attention a transformer's class token no longer depends on the image tokens, and a projection inside an
attention is not a feature. The target is therefore the last tensor that affects the logits when its spatial values
change, among those on every path to the logits or read by an attention. This is the input of the last attention, or the
averaged tensor, as in `kdedge_export.saliency` for source models.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kdedge_export.errors import HeadNotSupported
from kdedge_export.onnx_graph.graph_index import FLOATS, Array, GraphIndex, run_graph
from kdedge_export.onnx_graph.graph_input import GraphInput
from kdedge_export.onnx_graph.spatial.influence import influences_logits
from kdedge_export.onnx_graph.spatial.target_candidates import attentions, find_candidates
from kdedge_export.onnx_graph.spatial.tracker import SpatialTracker, track_positions
from kdedge_export.spatial_layout import SpatialLayout

__all__ = ["FeatureTensor", "find_features", "named_features"]


@dataclass(frozen=True)
class FeatureTensor:
    """Tensor with spatial positions."""

    tensor: str
    layout: SpatialLayout
    """Layout in the example run."""
    planes: tuple[str, int] | None = None
    """For tokens: a 4-axis tensor with the same positions, and its height axis; None if there is none."""


def find_features(
    view: GraphIndex,
    port: GraphInput,
    cuts: Sequence[str],
    logits: str,
    feed: Mapping[str, Array],
    name: str,
    *,
    is_cut: bool,
) -> FeatureTensor:
    """Find the last features with spatial positions that are followed by weights and affect the logits.

    Args:
        view: the graph.
        port: its image input.
        cuts: the tensors on every path to the logits, in order.
        logits: the tensor before a final softmax.
        feed: an example.
        name: name used in messages.
        is_cut: require features on every path to the logits.

    Raises:
        HeadNotSupported: there are none.
    """
    path = view.between(port.name, logits)
    candidates = find_candidates(view, cuts, path)
    followed = track_positions(view, port, path, candidates.tensors, feed, name)
    tensors = {*candidates.cuts} if is_cut else {*candidates.cuts, *candidates.readers(followed.grid)}
    too_early = ""
    for tensor in sorted(tensors, key=view.place, reverse=True):
        layout = followed.layout(tensor)
        if layout is None:
            continue
        reading = attentions(view, view.between(tensor, logits))
        if len(reading) > 1 and not (is_cut and layout.kind == "tokens"):
            too_early = (
                f" The last spatial features are {tensor}, {layout.height} × {layout.width} positions, and "
                f"{len(reading)} attentions after them mix all positions."
            )
            break
        if influences_logits(view, tensor, layout, logits, feed, name):
            return _features(followed, tensor, layout)
    raise HeadNotSupported(
        f"No spatial feature map of {name} affects the logits. Expected [N, C, h, w], [N, h, w, C] or tokens "
        f"[N, T, C]{_why_no_tokens(followed, candidates.cuts)} before the last weights.{too_early} Choose one: "
        "--target-layer TENSOR."
    )


def named_features(
    view: GraphIndex, port: GraphInput, target: str, logits: str, feed: Mapping[str, Array], name: str
) -> FeatureTensor:
    """Return the features with a given name.

    Args:
        view: the graph.
        port: its image input.
        target: the tensor, or the node that produces it, as listed by `kdedge inspect`.
        logits: the tensor before a final softmax.
        feed: an example.
        name: name used in messages.

    Raises:
        HeadNotSupported: there is no such tensor on a path to the logits, or it has no spatial positions.
    """
    by_node = {node.name: str(node.output[0]) for node in view.nodes if node.name}
    tensor = target if target in view.varying else by_node.get(target, target)
    if tensor not in view.varying or tensor == port.name or not view.between(tensor, logits):
        known = [item for node in view.nodes for item in node.output if item and item in view.varying]
        near = [item for item in known if tensor.lower() in item.lower()] or known
        raise HeadNotSupported(
            f"{name} has no tensor {tensor!r} on the path to its logits. Some of its tensors: {', '.join(near[-8:])}. "
            "`kdedge inspect` lists all nodes, whose names are accepted too."
        )
    value = run_graph(view.model, [tensor], feed, name)[tensor]
    if value.ndim not in (3, 4) or value.dtype.name not in FLOATS:
        raise HeadNotSupported(
            f"{name}: {tensor} is {value.dtype} {list(value.shape)}. "
            "Expected float features [N, C, h, w] or [N, h, w, C], or tokens [N, T, C]."
        )
    followed = track_positions(view, port, view.between(port.name, logits), {tensor}, feed, name)
    layout = followed.layout(tensor)
    if layout is None:
        raise HeadNotSupported(
            f"{name}: the spatial positions of {tensor} {list(value.shape)} cannot be followed through the graph. "
            "Name features [N, C, h, w] or [N, h, w, C] with at least two rows and columns, or tokens [N, T, C] in "
            "row-major order, after class tokens if there are any."
        )
    return _features(followed, tensor, layout)


def _features(followed: SpatialTracker, tensor: str, layout: SpatialLayout) -> FeatureTensor:
    return FeatureTensor(tensor, layout, followed.planes(layout) if layout.kind == "tokens" else None)


def _why_no_tokens(followed: SpatialTracker, cuts: Sequence[str]) -> str:
    rest = {followed.shapes[item][1:] for item in cuts if len(followed.shapes.get(item, ())) == 3}
    shapes = ", ".join(f"[N, {tokens}, {channels}]" for tokens, channels in sorted(rest))
    return f" in row-major order (found {shapes})" if shapes else ""
