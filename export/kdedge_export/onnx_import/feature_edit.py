"""Copy of a graph whose features are inputs, to measure the effect of changes on the logits."""

import onnx
from onnx import helper

from kdedge_export.onnx_graph.graph_index import Array, GraphIndex

__all__ = ["DELTA", "FEATURES", "MASK", "with_edited_features"]

FEATURES, MASK, DELTA = "kdedge/features", "kdedge/mask", "kdedge/delta"


def with_edited_features(
    original: onnx.ModelProto, target: str, logits: str, features: Array, *, without_rounding: bool
) -> tuple[onnx.ModelProto, bool]:
    """Replace a graph's features by `features · mask + delta`; the flag is True if later activations are quantized.

    The features are an input, so that a run skips all nodes that only lead to them.

    Args:
        original: the model.
        target: the features tensor.
        logits: the tensor at the end of the tail.
        features: example features. The new inputs `FEATURES`, `MASK` and `DELTA` have their type, and the last two
            broadcast against the first.
        without_rounding: remove the quantization of activations after the features, which has no gradient.
    """
    edited = onnx.ModelProto()
    edited.CopyFrom(original)
    graph, view = edited.graph, GraphIndex(original)
    path = set(view.between(target, logits))
    at = view.place(target)
    raw = f"{target}/unedited"
    graph.node[at].output[:] = [raw if name == target else name for name in graph.node[at].output]
    quantized = False
    for index in path if without_rounding else ():
        node = view.nodes[index]
        before = view.producer(node.input[0])
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
