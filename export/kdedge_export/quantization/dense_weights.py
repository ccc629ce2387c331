"""Quantization of large dense layers whose int8 weights are shared by logits and map.

A classifier of a thousand classes is a tenth of a small network's computation and half of its int8 file. Its weights
are quantized once, with one scale per output, and stored once:

- the logits are an integer product with a float result, so that they do not tie;
- the map gathers a class's row of bytes and multiplies it by the row's scale;
- a gradient through a hidden layer is quantized per image, after multiplication by the layer's scales. Its range is its
  own largest value, so that no image's map depends on others in the batch.
"""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from kdedge_export.onnx_graph.editor import GraphEditor
from kdedge_export.onnx_graph.node_attributes import attributes
from kdedge_export.quantization.calibration_ranges import Range
from kdedge_export.quantization.recipe import QuantizationRecipe

__all__ = ["dense_layers", "quantize_dense"]

_LEAST_WEIGHTS = 1 << 16
"""Minimum number of weights; below it, the additional operations take longer than the smaller weights save."""
_LARGEST_BIAS = float(1 << 30)
"""Largest bias in steps of the product's 32-bit sums."""


def dense_layers(graph: GraphEditor, left_alone: Collection[str]) -> list[str]:
    """Return the names of large dense layers excluded from the quantizer, or whose weight an excluded node reads.

    They are `Gemm`s whose `[out, in]` weight is read only in supported ways.
    """
    return [
        node.name
        for node in graph.graph.node
        if node.op_type == "Gemm"
        and any(reader.name in left_alone for reader in graph.consumers(node.input[1]))
        and _weight(graph, node) is not None
    ]


def quantize_dense(graph: GraphEditor, layers: Mapping[str, Range], recipe: QuantizationRecipe) -> None:
    """Quantize the weights of dense layers to int8.

    Args:
        graph: modified in place.
        layers: names of some of `dense_layers`, with the ranges of their inputs.
        recipe: quantization recipe.
    """
    for node in [node for node in graph.graph.node if node.name in layers]:
        weight = _weight(graph, node)
        assert weight is not None
        _Layer(graph, node, weight, layers[node.name], recipe).quantize()


def _weight(graph: GraphEditor, node: onnx.NodeProto) -> NDArray[np.float32] | None:
    settings = attributes(node)
    if node.op_type != "Gemm" or not settings.get("transB", 0) or settings.get("transA", 0):
        return None
    if settings.get("alpha", 1.0) != 1 or settings.get("beta", 1.0) != 1:
        return None
    weight = graph.constant(node.input[1])
    if weight is None or weight.size < _LEAST_WEIGHTS or _bias(graph, node, len(weight)) is None:
        return None
    readers = [reader for reader in graph.consumers(node.input[1]) if reader.name != node.name]
    known = all(_is_row(reader, node.input[1]) or _is_way_back(reader, node.input[1]) for reader in readers)
    return weight if known else None


def _bias(graph: GraphEditor, node: onnx.NodeProto, outputs: int) -> NDArray[np.float32] | None:
    return graph.constant(node.input[2]) if len(node.input) == 3 else np.zeros(outputs, np.float32)


def _is_row(node: onnx.NodeProto, weight: str) -> bool:
    return node.op_type == "Gather" and node.input[0] == weight and not attributes(node).get("axis", 0)


def _is_way_back(node: onnx.NodeProto, weight: str) -> bool:
    return node.op_type == "MatMul" and list(node.input).index(weight) == 1


class _Layer:
    """Dense layer being quantized."""

    def __init__(
        self,
        graph: GraphEditor,
        node: onnx.NodeProto,
        weight: NDArray[np.float32],
        reach: Range,
        recipe: QuantizationRecipe,
    ) -> None:
        self.graph, self.node, self.name = graph, node, node.input[1]
        self.kind: type[np.integer[Any]] = np.uint8 if recipe.activations == "uint8" else np.int8
        self.least = int(np.iinfo(self.kind).min)
        low, high = min(reach[0], 0.0), max(reach[1], 0.0)
        self.step = np.float32(max(high - low, 1e-6) / 255)
        self.zero = round(-low / float(self.step)) + self.least
        bias = _bias(graph, node, len(weight))
        assert bias is not None
        self.bias: NDArray[np.float32] = bias
        scale = np.abs(weight).max(axis=1) / recipe.largest
        # Rows of zeros need a scale too, and rows with a large bias one for which the bias does not overflow.
        least = np.maximum(np.abs(self.bias) / (self.step * _LARGEST_BIAS), np.finfo(np.float32).tiny)
        self.scale: NDArray[np.float32] = np.maximum(scale, least).astype(np.float32)
        self.bytes = np.clip(np.rint(weight / self.scale[:, None]), -recipe.largest, recipe.largest).astype(np.int8)

    def quantize(self) -> None:
        weight, graph = self.name, self.graph
        readers = [reader for reader in graph.consumers(weight) if reader.name != self.node.name]
        self.stored = graph.add_constant(f"{weight}_quantized", self.bytes)
        self._product()
        for reader in readers:
            if reader.op_type == "Gather":
                self._row(reader)
            else:
                self._way_back(reader)

    def _product(self) -> None:
        node, name, graph = self.node, self.node.output[0], self.graph
        step = graph.add_constant(f"{name}_input_scale", np.array(self.step))
        zero = graph.add_constant(f"{name}_input_zero_point", np.array(self.zero, self.kind))
        scale = graph.add_constant(f"{self.name}_scale", self.scale)
        # onnxruntime selects its integer kernel only if zero points are present, even if they are 0.
        none = graph.add_constant(f"{self.name}_zero_point", np.zeros(len(self.bytes), np.int8))
        none32 = graph.add_constant(f"{name}_bias_zero_point", np.zeros(len(self.bytes), np.int32))
        steps = self.scale.astype(np.float64) * self.step
        bias = graph.add_constant(f"{name}_bias", np.rint(self.bias / steps).astype(np.int32))
        bias_scale = graph.add_constant(f"{name}_bias_scale", steps.astype(np.float32))
        parts = [
            ("QuantizeLinear", [node.input[0], step, zero], f"{name}_input_quantized", {}),
            ("DequantizeLinear", [f"{name}_input_quantized", step, zero], f"{name}_input", {}),
            ("DequantizeLinear", [self.stored, scale, none], f"{self.name}_dequantized", {"axis": 0}),
            ("DequantizeLinear", [bias, bias_scale, none32], f"{name}_bias_dequantized", {"axis": 0}),
            ("Gemm", [f"{name}_input", f"{self.name}_dequantized", f"{name}_bias_dequantized"], name, {"transB": 1}),
        ]
        self._replace(node, parts)

    def _row(self, gather: onnx.NodeProto) -> None:
        """Rewrite `W[c]` as `bytes[c] · scale[c]`."""
        name = gather.output[0]
        scales = self.graph.add_constant(f"{self.name}_row_scale", self.scale[:, None])
        parts = [
            ("Gather", [self.stored, gather.input[1]], f"{name}_bytes", {"axis": 0}),
            ("Cast", [f"{name}_bytes"], f"{name}_steps", {"to": onnx.TensorProto.FLOAT}),
            ("Gather", [scales, gather.input[1]], f"{name}_scale", {"axis": 0}),
            ("Mul", [f"{name}_steps", f"{name}_scale"], name, {}),
        ]
        self._replace(gather, parts)

    def _way_back(self, product: onnx.NodeProto) -> None:
        """Rewrite `v · W` as `(v · scale) · bytes`, with `v · scale` quantized by its own largest value."""
        name, graph = product.output[0], self.graph
        scale = graph.add_constant(f"{self.name}_scale", self.scale)
        zero = graph.add_constant(f"{name}_zero_point", np.array(self.least + 128, self.kind))
        step = graph.add_constant(f"{name}_step", np.array(1 / 127, np.float32))
        one = graph.add_constant(f"{name}_one", np.array(1, np.float32))
        tiny = graph.add_constant(f"{name}_tiny", np.array(np.finfo(np.float32).tiny, np.float32))
        last = graph.add_constant(f"{name}_last_axis", np.array([-1]))
        parts = [
            ("Mul", [product.input[0], scale], f"{name}_scaled", {}),
            ("Abs", [f"{name}_scaled"], f"{name}_magnitude", {}),
            ("ReduceMax", [f"{name}_magnitude", last], f"{name}_reach", {"keepdims": 1}),
            ("Max", [f"{name}_reach", tiny], f"{name}_range", {}),
            ("Div", [f"{name}_scaled", f"{name}_range"], f"{name}_share", {}),
            ("QuantizeLinear", [f"{name}_share", step, zero], f"{name}_share_quantized", {}),
            ("DequantizeLinear", [f"{name}_share_quantized", step, zero], f"{name}_share_steps", {}),
            ("DequantizeLinear", [self.stored, one], f"{name}_weight_steps", {}),
            ("MatMul", [f"{name}_share_steps", f"{name}_weight_steps"], f"{name}_product", {}),
            ("Mul", [f"{name}_product", f"{name}_range"], name, {}),
        ]
        self._replace(product, parts)

    def _replace(self, node: onnx.NodeProto, parts: list[tuple[str, list[str], str, dict[str, int]]]) -> None:
        made = [
            helper.make_node(
                kind, inputs, [output], node.name if output == node.output[0] else f"node_{output}", **settings
            )
            for kind, inputs, output, settings in parts
        ]
        self.graph.replace({node.name}, made)
