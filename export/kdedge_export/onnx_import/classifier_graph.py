"""Analysis of a classifier's graph: target features, logits and the head between them."""

from collections.abc import Mapping
from dataclasses import dataclass

from kdedge_export.errors import HeadNotSupported
from kdedge_export.onnx_graph.graph_index import Array, GraphIndex, run_graph, subgraphs
from kdedge_export.onnx_graph.graph_input import GraphInput, find_image_input, make_example_feed
from kdedge_export.onnx_graph.pooling import pooled_axes
from kdedge_export.onnx_graph.spatial.feature_tensors import find_features, named_features
from kdedge_export.onnx_import.logits_output import RESHAPING, ROUNDING
from kdedge_export.spatial_layout import SpatialLayout

__all__ = ["ClassifierGraph", "analyze_classifier"]


@dataclass(frozen=True)
class ClassifierGraph:
    """Parts of a classifier's graph needed for a saliency map."""

    port: GraphInput
    logits: str
    """Logits tensor before a final softmax: `[N, K]`, or with further axes of size 1."""
    classes: int
    target: str
    """Target features tensor: planes, channels-last planes or tokens."""
    layout: SpatialLayout
    """Layout of the target in the example run."""
    planes: tuple[str, int] | None
    """For target tokens with a dynamic grid: a 4-axis tensor with the same positions, and its height axis; else
    None."""
    pooled: str | None
    """Mean of the target over the map, if the graph computes it directly; else None."""
    is_cut: bool
    """True if the logits depend on the image only through the target."""
    values: Mapping[str, Array]
    """Values of the target and all tensors after it in the example run."""
    head: str
    """Short description of the operators from the target to the logits, such as `GAP+Linear`."""

    @property
    def positions(self) -> tuple[int, int]:
        """Height and width of the target in the example run."""
        return self.layout.height, self.layout.width

    @property
    def has_fixed_size(self) -> bool:
        """True if the graph fixes the size of its input, and thereby of the map."""
        return self.port.has_size


def analyze_classifier(
    view: GraphIndex,
    name: str,
    logits: str,
    *,
    target: str | None = None,
    side_px: int | None = None,
    is_cut: bool = False,
) -> ClassifierGraph:
    """Analyze a classifier's graph.

    Args:
        view: the graph.
        name: name used in messages.
        logits: the logits tensor of two or more classes, before a softmax.
        target: the target tensor, or the node that produces it. None uses the last feature map followed by weights, or
            the last tokens with spatial positions that affect the logits.
        side_px: input size in pixels, if the graph leaves it dynamic.
        is_cut: without `target`, use features that the logits depend on exclusively.

    Raises:
        ModelFileError: the graph is not an image classifier.
        HeadNotSupported: there are no suitable features, or `target` has none.
    """
    port = find_image_input(view, name)
    feed = make_example_feed(port, side_px)
    cuts = view.cuts(port.name, logits)
    features = (
        named_features(view, port, target, logits, feed, name)
        if target
        else find_features(view, port, cuts, logits, feed, name, is_cut=is_cut)
    )
    target, layout = features.tensor, features.layout
    path = view.between(target, logits)
    if any(subgraphs(view.nodes[at]) for at in path):
        raise HeadNotSupported(
            f"{name} has branches or loops (If, Loop, Scan) between {target} and the logits, which cannot be "
            "explained. Export the model without them, or name a later tensor: --target-layer TENSOR."
        )
    tail = {target, *(tensor for at in path for tensor in view.nodes[at].output if tensor)}
    read = {item for at in path for item in view.nodes[at].input if item}
    constants = {item: value for item in read if (value := view.value(item)) is not None}
    values = constants | run_graph(view.model, sorted((tail | read) - constants.keys() - {port.name}), feed, name)
    return ClassifierGraph(
        port=port,
        logits=logits,
        classes=int(values[logits].size // len(values[logits])),
        target=target,
        layout=layout,
        planes=features.planes,
        pooled=_pooled(view, target, layout, values, path),
        is_cut=target in cuts,
        values=values,
        head=_head(view, path, values),
    )


def _pooled(
    view: GraphIndex, target: str, layout: SpatialLayout, values: Mapping[str, Array], path: list[int]
) -> str | None:
    takers = {at for at in view.consumers[target] if at in set(path)}
    if len(takers) != 1:
        return None
    node = view.nodes[takers.pop()]
    axes = pooled_axes(view, node, values[target].ndim, values[node.output[0]].shape)
    return str(node.output[0]) if axes == layout.position_axes else None


_SHORT = {"Gemm": "Linear", "MatMul": "Linear", "GlobalAveragePool": "GAP", "ReduceMean": "GAP", "AveragePool": "GAP"}
_SILENT = RESHAPING | ROUNDING | {"Transpose", "Concat", "Slice", "Gather", "Add"}
_MAX_NAMED = 8


def _head(view: GraphIndex, path: list[int], values: Mapping[str, Array]) -> str:
    parts = []
    for at in path:
        node = view.nodes[at]
        if node.op_type == "Conv" and values[node.output[0]].shape[2:] == (1, 1):
            parts.append("Linear")
        elif node.op_type not in _SILENT:
            parts.append(_SHORT.get(node.op_type, node.op_type))
    named = parts if len(parts) <= _MAX_NAMED else [*parts[: _MAX_NAMED - 2], "…", parts[-1]]
    return "+".join(named)
