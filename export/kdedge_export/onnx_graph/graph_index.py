"""Index of an ONNX graph: producers and consumers of its tensors, and their values in an example run."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import numpy_helper

from kdedge_export.onnx_graph.node_attributes import attributes
from kdedge_export.onnx_graph.session import CPU, open_session
from kdedge_runtime.errors import ModelFileError
from kdedge_runtime.onnx_session import first_line

__all__ = ["FLOATS", "Array", "GraphIndex", "TensorProbe", "run_graph", "shapes_of", "subgraphs"]

Array: TypeAlias = NDArray[Any]
FLOATS = ("float32", "float16")
"""Floating-point types of networks."""
_SHAPE_ONLY = {"Shape", "Size"}
"""Operators that depend only on a tensor's shape; nothing can be explained through them."""
_RANDOM = {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial"}


class GraphIndex:
    """Read-only index of a model's main graph, which nodes added later do not change.

    The links of `onnx_ir` change with every node that reads a value, including discarded ones.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.nodes: tuple[onnx.NodeProto, ...] = tuple(model.graph.node)
        self.inputs: tuple[str, ...] = tuple(
            value.name for value in model.graph.input if value.name not in {i.name for i in model.graph.initializer}
        )
        self._initializers = {tensor.name: tensor for tensor in model.graph.initializer}
        self._maker = {name: at for at, node in enumerate(self.nodes) for name in node.output if name}
        self.consumers: dict[str, list[int]] = {}
        self.varying: set[str] = set(self.inputs)
        """Tensors that depend on an input's values; all others are constants or shapes."""
        for at, node in enumerate(self.nodes):
            taken = self.inputs_of(node)
            for name in taken:
                self.consumers.setdefault(name, []).append(at)
            depends = node.op_type not in _SHAPE_ONLY and any(name in self.varying for name in taken)
            if depends or node.op_type in _RANDOM:
                self.varying.update(name for name in node.output if name)

    @property
    def opset(self) -> int:
        """Opset version of the graph."""
        return int(next(item.version for item in self.model.opset_import if item.domain in ("", "ai.onnx")))

    def producer(self, tensor: str) -> onnx.NodeProto | None:
        """Return the node that produces a tensor; None for inputs and initializers."""
        at = self._maker.get(tensor)
        return None if at is None else self.nodes[at]

    def place(self, tensor: str) -> int:
        """Return the index of the node that produces a tensor; -1 for inputs and initializers."""
        return self._maker.get(tensor, -1)

    def inputs_of(self, node: onnx.NodeProto) -> list[str]:
        """Return all tensors that a node reads, including those captured by subgraphs."""
        names = [name for name in node.input if name]
        for graph in subgraphs(node):
            made = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
            for inner in graph.node:
                names += [name for name in self.inputs_of(inner) if name not in made]
                made.update(inner.output)
        return names

    def between(self, source: str, target: str) -> list[int]:
        """Return the nodes on all paths from one tensor to another, in order."""
        reached = {source}
        forward = []
        for at in range(self.place(source) + 1, self.place(target) + 1):
            node = self.nodes[at]
            if node.op_type not in _SHAPE_ONLY and reached.intersection(self.inputs_of(node)):
                reached.update(name for name in node.output if name)
                forward.append(at)
        needed, kept = {target}, []
        for at in reversed(forward):
            if needed.intersection(self.nodes[at].output):
                needed.update(self.inputs_of(self.nodes[at]))
                kept.append(at)
        return kept[::-1]

    def cuts(self, source: str, target: str) -> list[str]:
        """Return the tensors on every path from `source` to `target`, in order, including both."""
        path = self.between(source, target)
        on_path = set(path)
        waiting = {source: sum(at in on_path for at in set(self.consumers.get(source, [])))}
        found = [source]
        for at in path:
            for name in set(self.inputs_of(self.nodes[at])) & waiting.keys():
                waiting[name] -= 1
                if not waiting[name]:
                    del waiting[name]
            for name in self.nodes[at].output:
                uses = sum(user in on_path for user in set(self.consumers.get(name, [])))
                if uses or name == target:
                    waiting[name] = uses
            if len(waiting) == 1:
                found += waiting
        return found

    def value(self, tensor: str) -> Array | None:
        """Return the value of a constant; None for a computed tensor."""
        if tensor in self._initializers:
            return np.asarray(numpy_helper.to_array(self._initializers[tensor]))
        node = self.producer(tensor)
        if node is None or tensor in self.varying:
            return None
        if node.op_type == "Constant":
            given = attributes(node)
            if "value" in given:
                return np.asarray(numpy_helper.to_array(given["value"]))
            kinds = (("value_float", np.float32), ("value_floats", np.float32), ("value_int", np.int64))
            for name, kind in (*kinds, ("value_ints", np.int64)):
                if name in given:
                    return np.asarray(given[name], dtype=kind)
        return self.value(node.input[0]) if node.op_type == "Identity" else None

    def shape(self, tensor: str) -> tuple[int, ...] | None:
        """Return the shape of a constant, even if its external data is not loaded; None for a computed tensor."""
        if tensor in self._initializers:
            return tuple(self._initializers[tensor].dims)
        value = self.value(tensor)
        return None if value is None else value.shape

    def is_weight(self, tensor: str) -> bool:
        """Return True for constants, including those computed from constants, such as dequantized weights."""
        return tensor not in self.varying and not self._is_from_shape(tensor)

    def _is_from_shape(self, tensor: str) -> bool:
        node = self.producer(tensor)
        return node is not None and (
            (node.op_type in _SHAPE_ONLY and node.input[0] in self.varying)
            or any(self._is_from_shape(name) for name in node.input if name)
        )


def subgraphs(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """Return the graphs inside a node: branches of `If`, bodies of `Loop` and `Scan`."""
    single = [item.g for item in node.attribute if item.type == onnx.AttributeProto.GRAPH]
    return single + [graph for item in node.attribute for graph in item.graphs]


def _prune(model: onnx.ModelProto, wanted: Iterable[str]) -> None:
    """Remove all nodes and constants that do not lead to the wanted tensors, which onnxruntime would run.

    A quantized graph is kept whole, since the consumers of a result determine its kernel.
    """
    if any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        return
    view, needed = GraphIndex(model), set(wanted)
    nodes, constants = model.graph.node, model.graph.initializer
    for at in reversed(range(len(nodes))):
        if needed.intersection(nodes[at].output):
            needed.update(view.inputs_of(nodes[at]))
        else:
            del nodes[at]
    needed.update(value.name for value in model.graph.input)  # a constant with an input's name is its default
    for at in reversed(range(len(constants))):
        if constants[at].name not in needed:
            del constants[at]


class TensorProbe:
    """Callable that returns any tensors of a graph, including inner ones."""

    def __init__(
        self,
        model: onnx.ModelProto,
        wanted: Iterable[str],
        name: str,
        threads: int | None = None,
        *,
        folder: Path | None = None,
        provider: str = CPU,
    ) -> None:
        """Open a session for the wanted tensors.

        Args:
            model: model of less than 2 GB.
            wanted: names of the tensors.
            name: name used in messages.
            threads: number of intra-op threads; None for all cores.
            folder: folder of external weights, if they are not loaded.
            provider: onnxruntime's execution provider.

        Raises:
            ModelFileError: onnxruntime cannot load the model.
        """
        self.names, self._title = list(dict.fromkeys(wanted)), name
        probed = onnx.ModelProto()
        probed.CopyFrom(model)
        known = {value.name: value for value in probed.graph.output}
        kept = [known.get(item, onnx.ValueInfoProto(name=item)) for item in self.names]
        del probed.graph.output[:]
        probed.graph.output.extend(kept)
        _prune(probed, self.names)
        try:
            self.session = open_session(probed, threads, exact_sums=False, folder=folder, provider=provider)
        except Exception as error:  # onnxruntime's errors have no common public base
            raise ModelFileError(
                f"onnxruntime {ort.__version__} cannot load {name}: {first_line(error)} Export it again for this "
                "version."
            ) from error

    def __call__(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        """Return the tensors by name for one feed.

        Raises:
            ModelFileError: onnxruntime cannot run the graph on it.
        """
        try:
            values = self.session.run(self.names, dict(feed))
        except Exception as error:  # see above
            shapes = ", ".join(f"{key} {list(value.shape)}" for key, value in feed.items())
            raise ModelFileError(f"{self._title} fails on {shapes}: {first_line(error)}") from error
        return dict(zip(self.names, values, strict=True))


def run_graph(model: onnx.ModelProto, wanted: Iterable[str], feed: Mapping[str, Array], name: str) -> dict[str, Array]:
    """Return any tensors of a graph for one feed.

    Raises:
        ModelFileError: onnxruntime cannot load or run the graph.
    """
    names = list(wanted)
    return TensorProbe(model, names, name)(feed) if names else {}


def shapes_of(
    model: onnx.ModelProto, wanted: Iterable[str], feed: Mapping[str, Array], name: str
) -> dict[str, tuple[int, ...]]:
    """Return the shapes of any tensors of a graph for one feed, without storing their values.

    Raises:
        ModelFileError: onnxruntime cannot load or run the graph.
    """
    outputs = {tensor: f"kdedge/shape_of/{tensor}" for tensor in wanted}
    probed = onnx.ModelProto()
    probed.CopyFrom(model)
    probed.graph.node.extend(onnx.helper.make_node("Shape", [tensor], [output]) for tensor, output in outputs.items())
    shapes = run_graph(probed, outputs.values(), feed, name)
    return {tensor: tuple(map(int, shapes[output])) for tensor, output in outputs.items()}
