"""Write a graph's float operations as ones that have integer kernels, before anything is quantized.

onnxruntime has no integer kernel of HardSwish, and of ReduceMean only one that is slower than pooling; each would be a
round trip through float. The functions computed stay the same (see `pixels` for the one exception, the border).
"""

from dataclasses import dataclass

import onnx
from onnx import helper

from kdedge_export.onnx_graph.editor import GraphEditor
from kdedge_export.onnx_graph.node_attributes import attributes
from kdedge_export.quantize.squeeze_excite import flatten_pooled
from kdedge_export.quantize.uint8_stem import read_pixels
from kdedge_export.torch_export.exporter import ExportedGraph

__all__ = ["Rewritten", "rewrite"]

_GATES = {"Sigmoid", "HardSigmoid"}


@dataclass(frozen=True)
class Rewritten:
    """A float graph that is ready to be quantized, with the shapes of its tensors."""

    model: onnx.ModelProto
    head_nodes: frozenset[str]
    always_float: frozenset[str]
    """Names of further nodes that gain nothing from integers: on pooled values, and the last function of the body."""
    pixel_zero: int | None
    """Zero point of the image's bytes where the first convolution reads them; None where they are normalised before."""

    @property
    def left_alone(self) -> frozenset[str]:
        """Names of all nodes that are not onnxruntime's quantizer's; of these, `dense` takes the large layers."""
        return self.head_nodes | self.always_float


def rewrite(graph: ExportedGraph, *, bytes_in: bool) -> Rewritten:
    """Prepare a graph.

    Args:
        graph: from `export_graph`; it is not changed.
        bytes_in: let the first convolution read the image's bytes, which takes uint8 activations.
    """
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    editor = GraphEditor(model)
    zero = read_pixels(editor) if bytes_in else None
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
    # Squeeze and excitation: a handful of values an image, whose int8 loses much and gains nothing, but where it is
    # large.
    pooled = flatten_pooled(editor, graph.head_nodes)
    editor.infer_shapes()
    return Rewritten(model, graph.head_nodes, pooled | _last_product(editor, graph.head_nodes), zero)


def _split_hard_swish(graph: GraphEditor, node: onnx.NodeProto) -> None:
    """`x · hardsigmoid(x)`, by the definition of the operator."""
    gate = f"{node.output[0]}_gate"
    parts = [
        helper.make_node("HardSigmoid", [node.input[0]], [gate], f"{node.name}_gate", alpha=1 / 6, beta=0.5),
        helper.make_node("Mul", [node.input[0], gate], list(node.output), f"{node.name}_product"),
    ]
    graph.replace({node.name}, parts)


def _pool(graph: GraphEditor, node: onnx.NodeProto) -> None:
    """A mean over rows and columns that keeps them is pooling."""
    axes, shape = graph.constant(node.input[1]) if len(node.input) > 1 else None, graph.shape(node.input[0])
    if axes is None or shape is None or len(shape) != 4:
        return
    if attributes(node).get("keepdims", 1) != 1 or sorted(axes % 4) != [2, 3]:
        return
    graph.replace(
        {node.name}, [helper.make_node("GlobalAveragePool", [node.input[0]], list(node.output), f"{node.name}_pool")]
    )


def _last_product(graph: GraphEditor, head: frozenset[str]) -> frozenset[str]:
    """The gated activation that the map weighs: rounding it after its input would cost the map, and gain little."""
    names = set()
    for node in graph.graph.node:
        readers = graph.consumers(node.output[0])
        if node.op_type == "Mul" and node.name not in head and readers and all(r.name in head for r in readers):
            names.add(node.name)
            factors = [graph.producer(name) for name in node.input]
            names.update(factor.name for factor in factors if factor is not None and factor.op_type in _GATES)
    return frozenset(names)
