"""Preparation of a graph: replace float operations by ones with integer kernels, before quantization.

onnxruntime has no integer kernel for HardSwish, and for ReduceMean only one that is slower than pooling. Each would
need a conversion to float and back. The computed functions stay the same, except for the border (see `uint8_stem`).
"""

from dataclasses import dataclass

import onnx
from onnx import helper

from kdedge_export.onnx_graph.editor import GraphEditor
from kdedge_export.onnx_graph.node_attributes import attributes
from kdedge_export.quantization.squeeze_excite import flatten_squeeze_excite
from kdedge_export.quantization.uint8_stem import quantize_stem
from kdedge_export.torch_export.exporter import ExportedGraph

__all__ = ["PreparedGraph", "prepare_graph"]

_GATES = {"Sigmoid", "HardSigmoid"}


@dataclass(frozen=True)
class PreparedGraph:
    """Prepared fp32 graph with the shapes of its tensors."""

    model: onnx.ModelProto
    head_nodes: frozenset[str]
    always_float: frozenset[str]
    """Nodes left in fp32 because quantizing them saves no time: those on pooled values, and the body's last
    activation."""
    pixel_zero: int | None
    """Zero point of the image bytes if the first convolution reads them; None if they are normalized before."""

    @property
    def left_alone(self) -> frozenset[str]:
        """Names of nodes excluded from onnxruntime's quantizer; `dense_weights` quantizes large ones among them."""
        return self.head_nodes | self.always_float


def prepare_graph(graph: ExportedGraph, *, bytes_in: bool) -> PreparedGraph:
    """Prepare a graph for quantization.

    Args:
        graph: result of `export_graph`; it is not modified.
        bytes_in: let the first convolution read the image bytes, which requires uint8 activations.
    """
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    editor = GraphEditor(model)
    zero = quantize_stem(editor) if bytes_in else None
    editor.infer_shapes()
    for node in list(model.graph.node):
        if node.name in graph.head_nodes:
            continue
        if node.op_type == "HardSwish":
            _split_hard_swish(editor, node)
        elif node.op_type == "ReduceMean":
            _pool(editor, node)
    editor.drop_unused()
    editor.infer_shapes()
    # Squeeze-and-excitation: a few values per image, whose quantization loses much and gains nothing unless it is
    # large.
    pooled = flatten_squeeze_excite(editor, graph.head_nodes)
    editor.infer_shapes()
    return PreparedGraph(model, graph.head_nodes, pooled | _last_product(editor, graph.head_nodes), zero)


def _split_hard_swish(graph: GraphEditor, node: onnx.NodeProto) -> None:
    """Split HardSwish into `x · hardsigmoid(x)`, its definition."""
    gate = f"{node.output[0]}_gate"
    parts = [
        helper.make_node("HardSigmoid", [node.input[0]], [gate], f"{node.name}_gate", alpha=1 / 6, beta=0.5),
        helper.make_node("Mul", [node.input[0], gate], list(node.output), f"{node.name}_product"),
    ]
    graph.replace({node.name}, parts)


def _pool(graph: GraphEditor, node: onnx.NodeProto) -> None:
    """Replace a mean over rows and columns that keeps them by pooling."""
    axes, shape = graph.constant(node.input[1]) if len(node.input) > 1 else None, graph.shape(node.input[0])
    if axes is None or shape is None or len(shape) != 4:
        return
    if attributes(node).get("keepdims", 1) != 1 or sorted(axes % 4) != [2, 3]:
        return
    graph.replace(
        {node.name}, [helper.make_node("GlobalAveragePool", [node.input[0]], list(node.output), f"{node.name}_pool")]
    )


def _last_product(graph: GraphEditor, head: frozenset[str]) -> frozenset[str]:
    """Return the gated activation used by the map; quantizing its output would degrade the map and gain little."""
    names = set()
    for node in graph.graph.node:
        readers = graph.consumers(node.output[0])
        if node.op_type == "Mul" and node.name not in head and readers and all(r.name in head for r in readers):
            names.add(node.name)
            factors = [graph.producer(name) for name in node.input]
            names.update(factor.name for factor in factors if factor is not None and factor.op_type in _GATES)
    return frozenset(names)
