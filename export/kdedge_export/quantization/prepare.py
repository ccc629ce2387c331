"""Preparation of a graph: replace float operations by ones with integer kernels, before quantization.

onnxruntime has no integer kernel for HardSwish, and for ReduceMean only one that is slower than pooling. Each would
need a conversion to float and back. The computed functions stay the same, except for the border (see `uint8_stem`).
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from kdedge_export.onnx_graph.edits import constant_input, infer_shapes, make_node, replace_node, to_proto
from kdedge_export.onnx_graph.front_end_nodes import front_end_nodes
from kdedge_export.quantization.squeeze_excite import flatten_squeeze_excite
from kdedge_export.quantization.uint8_stem import quantize_stem
from kdedge_export.torch_export.exporter import ExportedGraph
from kdedge_runtime.errors import ModelFileError

__all__ = ["PreparedGraph", "prepare_graph"]

_GATES = {"Sigmoid", "HardSigmoid"}


@dataclass(frozen=True)
class PreparedGraph:
    """Prepared fp32 graph with the shapes of its tensors."""

    model: ir.Model
    head_nodes: frozenset[str]
    always_float: frozenset[str]
    """Nodes left in fp32: those of a front end with weights, whose values have a wide range, and those whose
    quantization saves no time: on pooled values, and the body's last activation."""
    pixel_zero: int | None
    """Zero point of the image bytes if the first convolution reads them; None if they are normalized before."""

    @cached_property
    def proto(self) -> onnx.ModelProto:
        """The model in the form of files, which must not be modified."""
        return to_proto(self.model)

    @property
    def left_alone(self) -> frozenset[str]:
        """Names of nodes excluded from onnxruntime's quantizer; `dense_weights` quantizes large ones among them."""
        return self.head_nodes | self.always_float


def prepare_graph(graph: ExportedGraph, *, bytes_in: bool) -> PreparedGraph:
    """Prepare a graph for quantization.

    Args:
        graph: result of `export_graph`; it is not modified.
        bytes_in: let the first convolution read the image bytes, which requires uint8 activations.

    Raises:
        ModelFileError: the graph has sparse weights.
    """
    if sparse := graph.model.graph.sparse_initializer:  # not supported by onnx_ir
        raise ModelFileError(
            f"The graph has {len(sparse)} sparse weights, such as {sparse[0].values.name}, which cannot be quantized. "
            "Export the model again with dense weights."
        )
    model = ir.from_proto(graph.model)
    zero = quantize_stem(model.graph) if bytes_in else None
    infer_shapes(model)
    for node in model.graph:
        if node.name in graph.head_nodes:
            continue
        if node.op_type == "HardSwish":
            _split_hard_swish(node)
        elif node.op_type == "ReduceMean":
            _pool(node)
    infer_shapes(model)
    # Squeeze-and-excitation: a few values per sample, whose quantization loses much and gains nothing unless it is
    # large.
    pooled = flatten_squeeze_excite(model.graph, graph.head_nodes)
    RemoveUnusedNodesPass()(model)
    infer_shapes(model)
    always_float = pooled | _last_product(model.graph, graph.head_nodes) | front_end_nodes(model.graph)
    return PreparedGraph(model, graph.head_nodes, always_float, zero)


def _split_hard_swish(node: ir.Node) -> None:
    """Split HardSwish into `x · hardsigmoid(x)`, its definition."""
    x, output = node.inputs[0], node.outputs[0].name
    gate = make_node(
        "HardSigmoid", [x], f"{output}_gate", f"{node.name}_gate", alpha=float(np.float32(1 / 6)), beta=0.5
    )
    replace_node(node, [gate, make_node("Mul", [x, *gate.outputs], output, f"{node.name}_product")])


def _pool(node: ir.Node) -> None:
    """Replace a mean over rows and columns that keeps them by pooling."""
    axes, shape = constant_input(node, 1), node.inputs[0].shape
    if axes is None or shape is None or len(shape) != 4:
        return
    if node.attributes.get_int("keepdims", 1) != 1 or sorted(axes % 4) != [2, 3]:
        return
    pool = make_node("GlobalAveragePool", node.inputs[:1], node.outputs[0].name, f"{node.name}_pool")
    replace_node(node, [pool])


def _last_product(graph: ir.Graph, head: frozenset[str]) -> frozenset[str]:
    """Return the gated activation used by the map; quantizing its output would degrade the map and gain little."""
    names = set()
    for node in graph:
        readers = node.outputs[0].consumers()
        if node.op_type == "Mul" and node.name not in head and readers and all(r.name in head for r in readers):
            names.add(node.name)
            factors = [value.producer() for value in node.inputs]
            names.update(factor.name for factor in factors if factor is not None and factor.op_type in _GATES)
    return frozenset(names)
