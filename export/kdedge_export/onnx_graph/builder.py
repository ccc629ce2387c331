"""Builder of new nodes, in the form required by the graph's opset."""

from collections.abc import Container, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from kdedge_export.onnx_graph.graph_index import Array, GraphIndex

__all__ = ["NodeBuilder"]

PREFIX = "kdedge/"
"""Prefix of all added names, which avoids clashes and identifies them."""


class NodeBuilder:
    """Collect nodes and constants; `NodeBuilder.write` adds them to a model."""

    def __init__(self, view: GraphIndex) -> None:
        self.opset = view.opset
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._count = _last_number(view)
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}

    def add(self, op_type: str, *inputs: str, name: str | None = None, **attributes: Any) -> str:
        """Add a node with one output and return the output's name."""
        self._count += 1
        label = f"{PREFIX}{op_type}_{self._count}"
        output = name or label
        self.nodes.append(helper.make_node(op_type, list(inputs), [output], name=label, **attributes))
        return output

    def copy(self, node: onnx.NodeProto, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        """Copy a node of the graph with other input and output tensors."""
        self._count += 1
        twin = onnx.NodeProto()
        twin.CopyFrom(node)
        del twin.input[:], twin.output[:]
        twin.input.extend(inputs)
        twin.output.extend(outputs)
        twin.name = f"{PREFIX}{node.op_type}_{self._count}"
        self.nodes.append(twin)

    def constant(self, value: Array) -> str:
        """Add a constant and return its name; equal constants are stored once."""
        key = (value.dtype.str, value.shape, value.tobytes())
        if key not in self._constants:
            self._count += 1
            self._constants[key] = f"{PREFIX}constant_{self._count}"
            self.initializers.append(numpy_helper.from_array(value, self._constants[key]))
        return self._constants[key]

    def number(self, value: float, dtype: np.dtype[Any]) -> str:
        """Add a scalar constant of a tensor's type."""
        return self.constant(np.array(value, dtype=dtype))

    def reshape(self, tensor: str, shape: Sequence[int]) -> str:
        """Reshape to fixed sizes; -1 is inferred, 0 keeps the size."""
        return self.add("Reshape", tensor, self.constant(np.array(shape, dtype=np.int64)))

    def reshape_as(self, tensor: str, like: str) -> str:
        """Reshape to another tensor's shape."""
        return self.add("Reshape", tensor, self.add("Shape", like))

    def unsqueeze(self, tensor: str, axis: int) -> str:
        """Insert an axis of size 1; the axis is an attribute in older opsets."""
        if self.opset >= 13:
            return self.add("Unsqueeze", tensor, self.constant(np.array([axis], dtype=np.int64)))
        return self.add("Unsqueeze", tensor, axes=[axis])

    def cut(self, tensor: str, axis: int, start: int) -> str:
        """Slice from a position of an axis to its end."""
        return self.slice(tensor, [start], [np.iinfo(np.int64).max], [axis])

    def slice(self, tensor: str, starts: Sequence[int], ends: Sequence[int], axes: Sequence[int]) -> str:
        """Slice a tensor; the bounds are attributes in older opsets."""
        if self.opset >= 10:
            bounds = (self.constant(np.array(values, dtype=np.int64)) for values in (starts, ends, axes))
            return self.add("Slice", tensor, *bounds)
        return self.add("Slice", tensor, starts=list(starts), ends=list(ends), axes=list(axes))

    def cast(self, tensor: str, dtype: np.dtype[Any]) -> str:
        """Cast to another element type."""
        return self.add("Cast", tensor, to=helper.np_dtype_to_tensor_dtype(dtype))

    def float32(self, tensor: str, dtype: np.dtype[Any]) -> str:
        """Cast a tensor of type `dtype` to float32 if needed."""
        return tensor if dtype == np.float32 else self.cast(tensor, np.dtype(np.float32))

    def reduce(self, op_type: str, tensor: str, axes: Sequence[int], *, keepdims: bool, name: str | None = None) -> str:
        """Reduce over axes with an operator such as `ReduceSum`; the axes are an attribute in older opsets."""
        as_input_since = 13 if op_type == "ReduceSum" else 18
        if self.opset >= as_input_since:
            over = self.constant(np.array(axes, dtype=np.int64))
            return self.add(op_type, tensor, over, name=name, keepdims=int(keepdims))
        return self.add(op_type, tensor, name=name, axes=list(axes), keepdims=int(keepdims))

    def sum_into(self, sums: dict[str, str], name: str, part: str) -> None:
        """Add a tensor to the sum stored under a name."""
        sums[name] = self.add("Add", sums[name], part) if name in sums else part

    def drop_unused(self, tensors: Container[str]) -> None:
        """Remove nodes that produce one of these tensors if no added node uses it."""
        used = {item for node in self.nodes for item in node.input}
        self.nodes = [node for node in self.nodes if node.output[0] in used or node.output[0] not in tensors]

    def write(self, model: onnx.ModelProto) -> None:
        """Append everything to a model's graph."""
        model.graph.node.extend(self.nodes)
        model.graph.initializer.extend(self.initializers)
        self.nodes, self.initializers = [], []


def _last_number(view: GraphIndex) -> int:
    """Return the highest number among names added earlier."""
    names = [name for node in view.nodes for name in (node.name, *node.output)]
    names += [tensor.name for tensor in view.model.graph.initializer]
    numbers = (name.rpartition("_")[2] for name in names if name.startswith(PREFIX))
    return max((int(number) for number in numbers if number.isdigit()), default=0)
