"""Quantization of large dense layers whose int8 weights are shared by logits and map.

A classifier of a thousand classes is a tenth of a small network's computation and half of its int8 file. Its weights
are quantized once, with one scale per output, and stored once:

- the logits are an integer product with a float result, so that they do not tie;
- the map gathers a class's row of bytes and multiplies it by the row's scale;
- a gradient through a hidden layer is quantized per sample, after multiplication by the layer's scales. Its range is
  its own largest value, so that no sample's map depends on others in the batch.
"""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from kdedge_export.onnx_graph.edits import constant_input, has_input, initializer, make_node, replace_node
from kdedge_export.quantization.calibration_ranges import Range
from kdedge_export.quantization.recipe import QuantizationRecipe

__all__ = ["dense_layers", "quantize_dense"]

_MIN_WEIGHTS = 1 << 16
"""Minimum number of weights; below it, the additional operations take longer than the smaller weights save."""
_MAX_BIAS = float(1 << 30)
"""Largest bias in steps of the product's 32-bit sums."""


def dense_layers(graph: ir.Graph, left_alone: Collection[str]) -> list[str]:
    """Return the names of large dense layers excluded from the quantizer, or whose weight an excluded node reads.

    They are `Gemm`s whose `[out, in]` weight is read only in supported ways.
    """
    return [
        node.name
        for node in graph
        if node.op_type == "Gemm"
        and any(reader.name in left_alone for reader in node.inputs[1].consumers())
        and _weight(node) is not None
    ]


def quantize_dense(graph: ir.Graph, layers: Mapping[str, Range], recipe: QuantizationRecipe) -> None:
    """Quantize the weights of dense layers to int8.

    Args:
        graph: modified in place.
        layers: names of some of `dense_layers`, with the ranges of their inputs.
        recipe: quantization recipe.
    """
    for node in [node for node in graph if node.name in layers]:
        weight = _weight(node)
        assert weight is not None
        _Layer(graph, node, weight, layers[node.name], recipe).quantize()


def _weight(node: ir.Node) -> NDArray[np.float32] | None:
    given = node.attributes
    if node.op_type != "Gemm" or not given.get_int("transB", 0) or given.get_int("transA", 0):
        return None
    if given.get_float("alpha", 1.0) != 1 or given.get_float("beta", 1.0) != 1:
        return None
    weight = constant_input(node, 1)
    if weight is None or weight.size < _MIN_WEIGHTS or _bias(node, weight.shape[0]) is None:
        return None
    readers = [reader for reader in node.inputs[1].consumers() if reader is not node]
    known = all(_is_row(reader, node.inputs[1]) or _is_way_back(reader, node.inputs[1]) for reader in readers)
    return weight if known else None


def _bias(node: ir.Node, outputs: int) -> NDArray[np.float32] | None:
    if not has_input(node, 2):
        return np.zeros(outputs, np.float32)
    return constant_input(node, 2)


def _is_row(node: ir.Node, weight: ir.Value) -> bool:
    return node.op_type == "Gather" and node.inputs[0] is weight and not node.attributes.get_int("axis", 0)


def _is_way_back(node: ir.Node, weight: ir.Value) -> bool:
    return bool(node.op_type == "MatMul" and node.inputs.index(weight) == 1)


class _Layer:
    """Dense layer being quantized."""

    def __init__(
        self,
        graph: ir.Graph,
        node: ir.Node,
        weight: NDArray[np.float32],
        reach: Range,
        recipe: QuantizationRecipe,
    ) -> None:
        self.graph, self.node, self.name = graph, node, node.inputs[1].name
        self.kind: type[np.integer[Any]] = np.uint8 if recipe.activations == "uint8" else np.int8
        self.least = int(np.iinfo(self.kind).min)
        low, high = min(reach[0], 0.0), max(reach[1], 0.0)
        self.step = np.float32(max(high - low, 1e-6) / 255)
        self.zero = round(-low / float(self.step)) + self.least
        bias = _bias(node, len(weight))
        assert bias is not None
        self.bias: NDArray[np.float32] = bias
        scale = np.abs(weight).max(axis=1) / recipe.largest
        # Rows of zeros need a scale too, and rows with a large bias one for which the bias does not overflow.
        least = np.maximum(np.abs(self.bias) / (self.step * _MAX_BIAS), np.finfo(np.float32).tiny)
        self.scale: NDArray[np.float32] = np.maximum(scale, least).astype(np.float32)
        self.bytes = np.clip(np.rint(weight / self.scale[:, None]), -recipe.largest, recipe.largest).astype(np.int8)

    def quantize(self) -> None:
        readers = [reader for reader in self.node.inputs[1].consumers() if reader is not self.node]
        self.stored = self._constant("quantized", self.bytes)
        self.scales = self._constant("scale", self.scale)
        self._product()
        for reader in readers:
            if reader.op_type == "Gather":
                self._row(reader)
            else:
                self._rewrite_backward_product(reader)

    def _constant(self, name: str, array: NDArray[Any]) -> ir.Value:
        return initializer(self.graph, f"{self.name}_{name}", array)

    def _product(self) -> None:
        node, name, graph = self.node, self.node.outputs[0].name, self.graph
        step = initializer(graph, f"{name}_input_scale", np.array(self.step))
        zero = initializer(graph, f"{name}_input_zero_point", np.array(self.zero, self.kind))
        # onnxruntime selects its integer kernel only if zero points are present, even if they are 0.
        none = self._constant("zero_point", np.zeros(len(self.bytes), np.int8))
        none32 = initializer(graph, f"{name}_bias_zero_point", np.zeros(len(self.bytes), np.int32))
        steps = self.scale.astype(np.float64) * self.step
        bias = initializer(graph, f"{name}_bias", np.rint(self.bias / steps).astype(np.int32))
        bias_scale = initializer(graph, f"{name}_bias_scale", steps.astype(np.float32))
        parts = _Nodes(node)
        x = parts.add("QuantizeLinear", f"{name}_input_quantized", node.inputs[0], step, zero)
        x = parts.add("DequantizeLinear", f"{name}_input", x, step, zero)
        weight = parts.add("DequantizeLinear", f"{self.name}_dequantized", self.stored, self.scales, none, axis=0)
        bias = parts.add("DequantizeLinear", f"{name}_bias_dequantized", bias, bias_scale, none32, axis=0)
        parts.replace("Gemm", x, weight, bias, transB=1)

    def _row(self, gather: ir.Node) -> None:
        """Rewrite `W[c]` as `bytes[c] · scale[c]`."""
        name, index, parts = gather.outputs[0].name, gather.inputs[1], _Nodes(gather)
        row = parts.add("Gather", f"{name}_bytes", self.stored, index, axis=0)
        row = parts.add("Cast", f"{name}_steps", row, to=ir.DataType.FLOAT.value)
        scale = parts.add("Gather", f"{name}_scale", self._constant("row_scale", self.scale[:, None]), index, axis=0)
        parts.replace("Mul", row, scale)

    def _rewrite_backward_product(self, product: ir.Node) -> None:
        """Rewrite `v · W` as `(v · scale) · bytes`, with `v · scale` quantized by its own largest value."""
        name, graph, parts = product.outputs[0].name, self.graph, _Nodes(product)
        zero = initializer(graph, f"{name}_zero_point", np.array(self.least + 128, self.kind))
        step = initializer(graph, f"{name}_step", np.array(1 / 127, np.float32))
        one = initializer(graph, f"{name}_one", np.array(1, np.float32))
        tiny = initializer(graph, f"{name}_tiny", np.array(np.finfo(np.float32).tiny, np.float32))
        last = initializer(graph, f"{name}_last_axis", np.array([-1]))
        scaled = parts.add("Mul", f"{name}_scaled", product.inputs[0], self.scales)
        reach = parts.add("Abs", f"{name}_magnitude", scaled)
        reach = parts.add("ReduceMax", f"{name}_reach", reach, last, keepdims=1)
        reach = parts.add("Max", f"{name}_range", reach, tiny)
        share = parts.add("Div", f"{name}_share", scaled, reach)
        share = parts.add("QuantizeLinear", f"{name}_share_quantized", share, step, zero)
        share = parts.add("DequantizeLinear", f"{name}_share_steps", share, step, zero)
        weight = parts.add("DequantizeLinear", f"{name}_weight_steps", self.stored, one)
        whole = parts.add("MatMul", f"{name}_product", share, weight)
        parts.replace("Mul", whole, reach)


class _Nodes:
    """Nodes that replace another one."""

    def __init__(self, node: ir.Node) -> None:
        self._node = node
        self._nodes: list[ir.Node] = []

    def add(self, op_type: str, output: str, *inputs: ir.Value, **attributes: Any) -> ir.Value:
        self._nodes.append(make_node(op_type, inputs, output, **attributes))
        return self._nodes[-1].outputs[0]

    def replace(self, op_type: str, *inputs: ir.Value, **attributes: Any) -> None:
        last = make_node(op_type, inputs, self._node.outputs[0].name, self._node.name, **attributes)
        replace_node(self._node, [*self._nodes, last])
