"""Structure of a graph: shapes, parameters and multiply-accumulates (MACs) of its layers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import onnx
from onnx import shape_inference

from kdedge_export.inspection.example_feed import example_feed
from kdedge_export.onnx_graph.graph_index import GraphIndex, run_graph
from kdedge_export.onnx_graph.node_attributes import attributes

__all__ = ["GraphLayer", "GraphStructure", "structure_of"]

Shape = tuple[int | None, ...]


@dataclass(frozen=True)
class GraphLayer:
    """Node that depends on the input, for a batch of one."""

    name: str
    op_type: str
    inputs: tuple[str, ...]
    """Input tensors that depend on the model's input."""
    output: str
    shape: Shape
    """Output shape, with None for unknown sizes."""
    dtype: str
    parameters: int
    """Number of weights that this layer is the first to use."""
    macs: int
    """Multiply-accumulates of convolutions and matrix products; 0 for other operators."""


@dataclass(frozen=True)
class GraphStructure:
    """All layers of a graph, in order."""

    layers: tuple[GraphLayer, ...]
    inputs: tuple[tuple[str, str, Shape], ...]
    """Name, type and shape, as declared by the graph."""
    outputs: tuple[tuple[str, str, Shape], ...]

    @property
    def parameters(self) -> int:
        """Total number of parameters."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def macs(self) -> int:
        """Total multiply-accumulates for one image."""
        return sum(layer.macs for layer in self.layers)


def structure_of(model: onnx.ModelProto, side_px: int = 224) -> GraphStructure:
    """Analyze a graph's layers.

    Args:
        model: any ONNX model.
        side_px: value for a dynamic height or width, in pixels.
    """
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    ports = tuple(_port(value) for value in model.graph.input if value.name in GraphIndex(model).inputs)
    for value in fixed.graph.input:
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if dim.dim_value <= 0:
                dim.dim_value = 1 if axis == 0 else side_px
    del fixed.graph.value_info[:]  # those of dynamic sizes
    for value in fixed.graph.output:
        value.type.tensor_type.ClearField("shape")
    inferred = shape_inference.infer_shapes(fixed, data_prop=True)
    view = GraphIndex(inferred)
    shapes = {
        value.name: _port(value)[1:]
        for values in (inferred.graph.input, inferred.graph.value_info, inferred.graph.output)
        for value in values
    }
    unknown = [
        name
        for node in view.nodes
        for name in node.output
        if name in view.varying and not _known(shapes.get(name, ("", ()))[1]) and shapes.get(name, ("", None))[1] != ()
    ]
    if unknown:  # shapes that depend on computed constants need a run
        feed = example_feed(model, "The model", side_px=side_px)
        for name, value in run_graph(model, unknown, feed, "The model").items():
            shapes[name] = (value.dtype.name, value.shape)
    weights = {tensor.name: tuple(tensor.dims) for tensor in inferred.graph.initializer}
    seen: set[str] = set()
    layers = []
    for node in view.nodes:
        varying = tuple(name for name in node.input if name in view.varying)
        if not varying or node.output[0] not in view.varying:
            continue
        used = [name for name in _weights_of(view, node) if name in weights and name not in seen]
        seen.update(used)
        dtype, shape = shapes.get(node.output[0], ("", ()))
        parameters = sum(math.prod(weights[name]) for name in used if not _is_setting(node, name))
        macs = _macs(view, node, shape, {**{name: item[1] for name, item in shapes.items()}, **weights})
        layers.append(
            GraphLayer(
                node.name or node.output[0], node.op_type, varying, node.output[0], shape, dtype, parameters, macs
            )
        )
    return GraphStructure(tuple(layers), ports, tuple(_port(value) for value in model.graph.output))


def _port(value: onnx.ValueInfoProto) -> tuple[str, str, Shape]:
    tensor = value.type.tensor_type
    dtype = onnx.TensorProto.DataType.Name(tensor.elem_type).lower() if tensor.elem_type else ""
    shape = tuple(dim.dim_value if dim.dim_value > 0 else None for dim in tensor.shape.dim)
    return value.name, {"float": "float32"}.get(dtype, dtype), shape


def _weights_of(view: GraphIndex, node: onnx.NodeProto) -> list[str]:
    """Return the initializers of a node's constant inputs, also through nodes such as DequantizeLinear."""
    found, waiting = [], [name for name in node.input if name and name not in view.varying]
    while waiting:
        name = waiting.pop()
        maker = view.producer(name)
        if maker is None:
            found.append(name)
        elif name not in view.varying:
            waiting += [item for item in maker.input if item and item not in view.varying]
    return found


def _is_setting(node: onnx.NodeProto, name: str) -> bool:
    """Return True for constants that are settings, such as a shape or a scale, and not learned."""
    learns = {"Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization", "LayerNormalization", "PRelu"}
    learns |= {"Add", "Mul", "InstanceNormalization", "GroupNormalization"}
    return node.op_type not in learns or name.endswith(("_scale", "_zero_point"))


def _macs(view: GraphIndex, node: onnx.NodeProto, shape: Shape, shapes: dict[str, Shape]) -> int:
    if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul") or not _known(shape):
        return 0
    weight = shapes.get(node.input[1], ())
    if node.op_type == "Conv" and _known(weight):
        return math.prod(_numbers(shape)) * math.prod(_numbers(weight[1:]))
    if node.op_type == "ConvTranspose" and _known(weight):
        source = shapes.get(node.input[0], ())
        return math.prod(_numbers(source)) * math.prod(_numbers(weight[1:])) if _known(source) else 0
    source = shapes.get(node.input[0], ())
    if not _known(source):
        return 0
    inner = source[0] if node.op_type == "Gemm" and attributes(node).get("transA", 0) else source[-1]
    return math.prod(_numbers(shape)) * int(inner or 0)


def _known(shape: Shape) -> bool:
    return bool(shape) and all(size is not None for size in shape)


def _numbers(shape: Sequence[int | None]) -> list[int]:
    return [int(size or 0) for size in shape]
