"""A copy of a graph in which features can be changed from outside, to see what the answer makes of it."""

import onnx
from onnx import helper

from kdedge_export.onnx_graph.graph_index import Array, GraphView

__all__ = ["DELTA", "FEATURES", "MASK", "with_edited_features"]

FEATURES, MASK, DELTA = "kdedge/features", "kdedge/mask", "kdedge/delta"


def with_edited_features(
    original: onnx.ModelProto, target: str, logits: str, features: Array, *, without_rounding: bool
) -> tuple[onnx.ModelProto, bool]:
    """The graph with `features · mask + delta` in place of its features; and whether what follows them is quantized.

    The features are an input too, so that a run leaves out all that only leads to them.

    Args:
        original: the model.
        target: the tensor of its features.
        logits: the tensor where the tail ends.
        features: an example of them. The new inputs `FEATURES`, `MASK` and `DELTA` are of its type, and the last two
            broadcast against the first.
        without_rounding: leave out the quantizing of activations behind the features, whose steps have no slope.
    """
    edited = onnx.ModelProto()
    edited.CopyFrom(original)
    graph, view = edited.graph, GraphView(original)
    path = set(view.between(target, logits))
    at = view.place(target)
    raw = f"{target}/unedited"
    graph.node[at].output[:] = [raw if name == target else name for name in graph.node[at].output]
    quantized = False
    for index in path if without_rounding else ():
        node = view.nodes[index]
        before = view.maker(node.input[0])
        if node.op_type == "DequantizeLinear" and before is not None and before.op_type == "QuantizeLinear":
            quantized = True
            graph.node[index].CopyFrom(helper.make_node("Identity", [before.input[0]], list(node.output)))
    kind = helper.np_dtype_to_tensor_dtype(features.dtype)
    for name in (FEATURES, MASK, DELTA):
        graph.input.append(helper.make_tensor_value_info(name, kind, [None] * features.ndim))
    edits = [
        helper.make_node("Mul", [FEATURES, MASK], [f"{raw}/masked"]),
        helper.make_node("Add", [f"{raw}/masked", DELTA], [target]),
    ]
    nodes = [*graph.node[: at + 1], *edits, *graph.node[at + 1 :]]
    del graph.node[:]
    graph.node.extend(nodes)
    return edited, quantized
