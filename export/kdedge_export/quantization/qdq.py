"""Insertion of QuantizeLinear and DequantizeLinear pairs at chosen nodes of a prepared graph."""

import contextlib
import logging
import math
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass
from onnxruntime.quantization import QuantType
from onnxruntime.quantization.calibrate import TensorData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from kdedge_export.onnx_graph.edits import constant_input, gated_product, initializer, make_node, replace_node, to_proto
from kdedge_export.onnx_graph.node_attributes import WEIGHTED
from kdedge_export.quantization.calibration_ranges import Range
from kdedge_export.quantization.dense_weights import dense_layers, quantize_dense
from kdedge_export.quantization.prepare import PreparedGraph
from kdedge_export.quantization.recipe import QuantizationRecipe
from kdedge_export.quantization.uint8_stem import CENTERED
from kdedge_export.quantization.weight_storage import store_int8_weights

__all__ = ["insert_quantization", "observed_tensors", "quantizable_nodes"]

_OP_TYPES = {
    "Conv",
    "Gemm",
    "MatMul",
    "Add",
    "Mul",
    "Relu",
    "Clip",
    "MaxPool",
    "AveragePool",
    "GlobalAveragePool",
    "Concat",
    "Sigmoid",
    "LeakyRelu",
    "HardSigmoid",
}
"""Operators with an int8 kernel, or rewritten to one. Quantizing any other operator would add conversions to float
and back."""
_COARSEST = 1.5
"""Maximum step size of a HardSwish input, relative to the step size of its own range."""


def quantizable_nodes(rewritten: PreparedGraph) -> list[str]:
    """Return the names of quantizable nodes, in graph order."""
    graph, left_alone = rewritten.model.graph, rewritten.left_alone
    nodes = tuple(graph)
    first = next(
        (index for index, node in enumerate(nodes) if node.op_type in WEIGHTED and node.name not in left_alone), 0
    )
    dense = dense_layers(graph, left_alone)
    excluded = left_alone | _between_weights(graph, [name for name in dense if name not in left_alone])
    excluded |= _shape_arithmetic(graph)
    names = [
        node.name
        for node in nodes[first:]
        if node.op_type in _OP_TYPES
        and node.name not in excluded
        and (node.op_type != "HardSigmoid" or gated_product(node) is not None)
    ]
    # Nodes that convert pixel groups back to positions operate on bytes.
    moved = [node.name for node in nodes if node.outputs[0].name in {"grouped_positions", "positions", "ungrouped"}]
    return [*names, *moved, *dense]


def _shape_arithmetic(graph: ir.Graph) -> set[str]:
    """Return the nodes that compute with shapes alone, such as the padding of TensorFlow, which must stay exact."""
    names, shapes = set[str](), set[ir.Value]()
    for node in graph:
        inputs = [value for value in node.inputs if value is not None]
        if node.op_type in ("Shape", "Size") or all(
            value in shapes or value.const_value is not None for value in inputs
        ):
            shapes.update(node.outputs)
            names.add(node.name)
    return names


def _between_weights(graph: ir.Graph, dense: Collection[str]) -> set[str]:
    """Return the dense layers, whose outputs are float, and the nodes after them up to the next layer."""
    names, tensors = set[str](), set[ir.Value]()
    for node in graph:
        if node.name in dense or (tensors.intersection(node.inputs) and node.op_type not in WEIGHTED):
            tensors.update(node.outputs)
            names.add(node.name)
    return names


def observed_tensors(rewritten: PreparedGraph) -> list[str]:
    """Return the names of the tensors whose ranges are needed."""
    names, graph = set(quantizable_nodes(rewritten)), rewritten.model.graph
    values = dict.fromkeys(value for node in graph if node.name in names for value in (*node.inputs, *node.outputs))
    return [
        value.name
        for value in values
        if value is not None
        and value.const_value is None
        and not value.is_graph_input()
        and not value.is_graph_output()
        and value.dtype == ir.DataType.FLOAT
        and value.name != CENTERED
    ]


def insert_quantization(
    rewritten: PreparedGraph, ranges: Mapping[str, Range], recipe: QuantizationRecipe, float_nodes: Collection[str] = ()
) -> onnx.ModelProto:
    """Quantize all quantizable nodes except some; a graph without any only stores its dense weights in int8.

    Args:
        rewritten: result of `prepare_graph`.
        ranges: range of every tensor of `observed_tensors`.
        recipe: quantization recipe.
        float_nodes: names of nodes to keep in fp32.
    """
    graph = rewritten.model.graph
    left = set(float_nodes) | _gates_that_never_close(graph, ranges)
    chosen = [name for name in quantizable_nodes(rewritten) if name not in left]
    large = set(dense_layers(graph, rewritten.left_alone))
    body = [name for name in chosen if name not in large]
    dense = {node.name: ranges[node.inputs[0].name] for node in graph if node.name in large.intersection(chosen)}
    prepared = onnx.ModelProto()
    prepared.CopyFrom(rewritten.proto)
    if not quantizable_nodes(rewritten):
        return store_int8_weights(prepared, recipe.largest)
    if not chosen:
        return prepared
    narrowed, fixed = dict(ranges), dict[str, list[dict[str, Any]]]()
    kind, least = (QuantType.QUInt8, 0) if recipe.activations == "uint8" else (QuantType.QInt8, -128)
    whole = np.uint8 if recipe.activations == "uint8" else np.int8
    gates = [node for node in graph if node.name in body and node.op_type in {"HardSigmoid", "Sigmoid"}]
    for gate in gates:
        tensor = gate.inputs[0].name
        if gate.op_type == "HardSigmoid":
            scale, steps = _gate_steps(gate, ranges[tensor][1])
            fixed[tensor] = [_parameters(scale, least + steps, whole)]
        elif (product := gated_product(gate)) is not None and tensor in ranges:
            narrowed[tensor] = _without_tail(ranges[tensor], ranges.get(product.outputs[0].name, ranges[tensor]))
    if rewritten.pixel_zero is not None:
        narrowed[CENTERED] = (-float(rewritten.pixel_zero), 255.0 - rewritten.pixel_zero)
        fixed[CENTERED] = [_parameters(1.0, rewritten.pixel_zero, np.uint8)]
    # The quantizer treats an empty list as all nodes.
    model = ir.from_proto(_quantize(prepared, body, narrowed, fixed, kind, recipe) if body else prepared)
    _take_bytes(model.graph)
    for node in model.graph:
        if node.op_type == "HardSigmoid" and node.name in body:
            _clip_bytes(node, least)
    quantize_dense(model.graph, dense, recipe)
    RemoveUnusedNodesPass()(model)
    return to_proto(model)


def _quantize(
    model: onnx.ModelProto,
    nodes: list[str],
    ranges: Mapping[str, Range],
    fixed: dict[str, list[dict[str, Any]]],
    kind: QuantType,
    recipe: QuantizationRecipe,
) -> onnx.ModelProto:
    with _quiet():
        quantizer = QDQQuantizer(
            model,
            per_channel=True,
            reduce_range=recipe.reduce_range,
            weight_qType=QuantType.QInt8,
            activation_qType=kind,
            tensors_range={name: _tensor_data(span) for name, span in ranges.items()},
            nodes_to_quantize=nodes,
            nodes_to_exclude=[],
            op_types_to_quantize=[*_OP_TYPES, "Reshape", "Transpose"],
            extra_options={"TensorQuantOverrides": fixed},
        )
        quantizer.quantize_model()
        quantizer.model.topological_sort()
    quantized: onnx.ModelProto = quantizer.model.model
    return quantized


def _gates_that_never_close(graph: ir.Graph, ranges: Mapping[str, Range]) -> set[str]:
    """Return HardSwish gates and products whose inputs are too small for a range down to the closing point."""
    names = set[str]()
    for node in graph:
        product = gated_product(node) if node.op_type == "HardSigmoid" else None
        if product is not None and node.inputs[0].name in ranges:
            low, high = ranges[node.inputs[0].name]
            scale, _ = _gate_steps(node, high)
            if 255 * scale > _COARSEST * (high - low):
                names.update((node.name, product.name))
    return names


def _gate_steps(gate: ir.Node, high: float) -> tuple[float, int]:
    """Return the scale of a HardSwish input, and the number of steps its lowest value lies below 0.

    The lowest value is -3, where the gate closes, since all values below give 0 as well. It must be a whole number of
    steps, so that the gate can use the same bytes.
    """
    closed = gate.attributes.get_float("beta", 0.5) / gate.attributes.get_float("alpha", 0.2)
    steps = max(1, min(254, int(255 * closed / (max(high, 1e-6) + closed))))
    return closed / steps, steps


def _without_tail(span: Range, product: Range) -> Range:
    """Exclude SiLU inputs so low that the output, rounded to its own step size, is 0."""
    step = (max(product[1], 0.0) - min(product[0], 0.0)) / 255
    values = np.linspace(-20, -1.3, 500)
    small = values[-values / (1 + np.exp(-values)) <= step / 2]
    return max(span[0], float(small.max()) if len(small) else -20.0), span[1]


def _take_bytes(graph: ir.Graph) -> None:
    """Use the pixels directly, which equal the result of centering and quantizing them."""
    for node in graph:
        if node.op_type == "QuantizeLinear" and node.inputs[0].name == CENTERED:
            cast = node.inputs[0].producer().inputs[0].producer()
            node.outputs[0].replace_all_uses_with(cast.inputs[0])


def _clip_bytes(node: ir.Node, least: int) -> None:
    """Compute a hard sigmoid of quantized values by clipping the bytes, with another scale and zero point.

    `clip(αx + β, 0, 1)` is `α · (x - closed)` between its closing and opening point. `_gate_steps` assigns the smallest
    byte to the closing point. Bytes are therefore clipped at the opening point, and scaled by α.
    """
    graph, prefix, alpha = node.graph, node.outputs[0].name, node.attributes.get_float("alpha", 0.2)
    (quantize,) = node.outputs[0].consumers()
    (dequantize,) = quantize.outputs[0].consumers()
    source = node.inputs[0].producer()
    assert source is not None and source.op_type == "DequantizeLinear" and dequantize.op_type == "DequantizeLinear"
    scale = constant_input(source, 1)
    assert scale is not None
    kind = np.uint8 if least == 0 else np.int8
    open_at = min(least + round(1 / (alpha * float(scale))), least + 255)
    closed = initializer(graph, f"{prefix}_closed", np.array(least, kind))
    opened = initializer(graph, f"{prefix}_open", np.array(open_at, kind))
    dequantize.replace_input_with(1, initializer(graph, f"{prefix}_step", np.array(alpha * scale, np.float32)))
    dequantize.replace_input_with(2, initializer(graph, f"{prefix}_zero", np.array(least, kind)))
    inputs = [source.inputs[0], closed, opened]
    replace_node(quantize, [make_node("Clip", inputs, quantize.outputs[0].name, f"{node.name}_clip")])


def _parameters(scale: float, zero: int, kind: type) -> dict[str, Any]:
    return {"scale": np.array(scale, np.float32), "zero_point": np.array(zero, kind)}


def _tensor_data(span: Range) -> TensorData:
    low, high = span
    if not (math.isfinite(low) and math.isfinite(high)):
        low, high = -1.0, 1.0
    return TensorData(lowest=np.float32(low), highest=np.float32(high))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the quantizer's advice on the root logger about steps already taken."""
    level = logging.getLogger().level
    logging.getLogger().setLevel(logging.ERROR)
    try:
        yield
    finally:
        logging.getLogger().setLevel(level)
