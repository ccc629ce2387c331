"""What in a classifier's graph is its image input, its logits, and the features that a map should look at."""

from collections.abc import Mapping
from dataclasses import dataclass

from kdedge_export.errors import HeadNotSupported
from kdedge_export.surgery.pooling import pooled_axes
from kdedge_export.surgery.port import Layout, Port, example_feed, image_port
from kdedge_export.surgery.view import Array, GraphView, attributes, run_graph, subgraphs
from kdedge_runtime.errors import ModelFileError

__all__ = ["Anatomy", "dissect"]

_RESHAPING = {"Flatten", "Reshape", "Squeeze", "Unsqueeze", "Identity", "Cast", "Dropout"}
_ROUNDING = {"QuantizeLinear", "DequantizeLinear"}
_WEIGHTED = {"Conv", "Gemm", "MatMul"}
_ELEMENTWISE = {
    *("Relu", "LeakyRelu", "Clip", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish", "Swish", "Gelu", "Elu", "PRelu"),
    *("Add", "Sub", "Mul", "Div", "Identity", "Cast", "Dropout", "QuantizeLinear", "DequantizeLinear", "Erf", "Concat"),
}
_CHANNELS_FIRST = {
    *("Conv", "ConvTranspose", "BatchNormalization", "MaxPool", "AveragePool", "InstanceNormalization", "LRN"),
    *("GlobalAveragePool", "GlobalMaxPool", "SpaceToDepth", "DepthToSpace"),
}


@dataclass(frozen=True)
class Anatomy:
    """The parts of a classifier's graph that a map is made of."""

    port: Port
    output: str
    """The graph's own output that ranks the classes."""
    logits: str
    """The tensor before a softmax at the end: `[N, K]`, or with further axes of size 1."""
    classes: int
    target: str
    """The features that the map looks at, 4-D."""
    layout: Layout
    """Of the target."""
    pooled: str | None
    """The target's mean over the map, where the graph takes it; None where something else comes first."""
    is_cut: bool
    """Whether all that the logits know of the image has gone through the target."""
    values: Mapping[str, Array]
    """What the target and all tensors after it held in the example run."""
    head: str
    """The operators from the target to the logits, in short form, such as `GAP+Linear`."""

    @property
    def cells(self) -> tuple[int, int]:
        """Height and width of the target in the example run."""
        shape = self.values[self.target].shape
        return (shape[2], shape[3]) if self.layout == "NCHW" else (shape[1], shape[2])

    @property
    def has_fixed_size(self) -> bool:
        """Whether the graph fixes the size of its input, and with it that of the map."""
        return self.port.has_size


def dissect(view: GraphView, name: str, *, target: str | None = None, side_px: int | None = None) -> Anatomy:
    """Find the parts.

    Args:
        view: the graph.
        name: what messages call it.
        target: the tensor to look at, or the node that gives it; None takes the last map of features that has weights
            after it.
        side_px: side of the input, where the graph leaves it open.

    Raises:
        ModelFileError: it is no image classifier.
        HeadNotSupported: there are no features to look at, or not where `target` says.
    """
    port = image_port(view, name)
    feed = example_feed(port, side_px)
    outputs = run_graph(view.model, [value.name for value in view.model.graph.output], feed, name)
    output = _ranking_output(view, outputs, len(feed[port.name]), name)
    logits = _before_softmax(view, output)
    cuts = view.cuts(port.name, logits)
    held = run_graph(view.model, [tensor for tensor in cuts if tensor != port.name], feed, name)
    target = (
        _checked_target(view, port, _tensor_of(view, target), logits, name)
        if target
        else _last_features(view, held, logits, name)
    )
    path = view.between(target, logits)
    if any(subgraphs(view.nodes[at]) for at in path):
        raise HeadNotSupported(
            f"{name} has branches or loops (If, Loop, Scan) between {target} and the logits, which cannot be "
            "explained. Export the model without them, or name a later tensor: --target-layer TENSOR."
        )
    tail = {target, *(tensor for at in path for tensor in view.nodes[at].output if tensor)}
    read = {item for at in path for item in view.nodes[at].input if item}
    constants = {item: value for item in read if (value := view.value(item)) is not None}
    values = constants | run_graph(view.model, sorted((tail | read) - constants.keys() - {port.name}), feed, name)
    _require_features(values[target], target, name)
    layout = _layout(view, target, values)
    if layout is None:
        raise HeadNotSupported(
            f"{name}: whether {target} has its channels first or last cannot be seen in the graph. "
            "Name a tensor that a convolution or pooling gives: --target-layer TENSOR."
        )
    return Anatomy(
        port=port,
        output=output,
        logits=logits,
        classes=int(values[logits].size // len(values[logits])),
        target=target,
        layout=layout,
        pooled=_pooled(view, target, layout, values, path),
        is_cut=target in cuts,
        values=values,
        head=_head(view, path, values),
    )


def _ranking_output(view: GraphView, outputs: Mapping[str, Array], images: int, name: str) -> str:
    found = {
        tensor: _before_softmax(view, tensor)
        for tensor, value in outputs.items()
        if value.dtype.name in ("float32", "float16")
        and value.ndim >= 2
        and len(value) == images
        and value.shape[1] > 1
        and value.size == images * value.shape[1]
    }
    if len(set(found.values())) == 1:  # logits and their softmax are one answer
        return next(iter(found))
    if "logits" in found:
        return "logits"
    shown = ", ".join(f"{tensor} {value.dtype} {list(value.shape)}" for tensor, value in outputs.items())
    raise ModelFileError(
        f"{name} is no classifier that can be explained: for {images} images it gives {shown}. Expected one output "
        f"float [{images}, classes] of two classes or more, or one of several that is named logits."
    )


def _before_softmax(view: GraphView, output: str) -> str:
    tensor = output
    while (node := view.maker(tensor)) is not None:
        if node.op_type in ("Softmax", "LogSoftmax", "Sigmoid"):
            return str(node.input[0])
        if node.op_type not in _RESHAPING | _ROUNDING:
            break
        tensor = node.input[0]
    return output


def _last_features(view: GraphView, held: Mapping[str, Array], logits: str, name: str) -> str:
    for tensor, value in reversed(list(held.items())):
        if value.ndim != 4 or value.dtype.name not in ("float32", "float16") or not _is_map(value):
            continue
        path = view.between(tensor, logits)
        if sum(view.nodes[at].op_type == "Softmax" for at in path) > 1:
            break  # blocks of attention, in which all cells get to know of each other
        weighted = (at for at in path if view.nodes[at].op_type in _WEIGHTED)
        if any(view.is_weight(item) for at in weighted for item in view.nodes[at].input):
            return str(tensor)
    raise HeadNotSupported(
        f"{name} has no map of features, [N, C, h, w] or [N, h, w, C], that all of the answer goes through and that "
        "has weights after it (transformers with a class token have none), so there is nothing to lay over a picture. "
        "Name a tensor that has: --target-layer TENSOR."
    )


def _is_map(value: Array) -> bool:
    """Whether two axes of a 4-D tensor can be height and width."""
    return bool(min(value.shape[2:]) > 1 or min(value.shape[1:3]) > 1)


def _tensor_of(view: GraphView, target: str) -> str:
    """The tensor of that name, or the first output of the node of that name: `kdedge inspect` lists nodes."""
    by_node = {node.name: str(node.output[0]) for node in view.nodes if node.name}
    return target if target in view.varying else by_node.get(target, target)


def _checked_target(view: GraphView, port: Port, target: str, logits: str, name: str) -> str:
    if target not in view.varying or target == port.name or not view.between(target, logits):
        known = [tensor for node in view.nodes for tensor in node.output if tensor and tensor in view.varying]
        near = [tensor for tensor in known if target.lower() in tensor.lower()] or known
        raise HeadNotSupported(
            f"{name} has no tensor {target!r} on the way to its logits. Some that it has: {', '.join(near[-8:])}. "
            "`kdedge inspect` lists all nodes, whose names can be typed too."
        )
    return target


def _require_features(value: Array, target: str, name: str) -> None:
    if value.ndim != 4 or not _is_map(value) or value.dtype.name not in ("float32", "float16"):
        raise HeadNotSupported(
            f"{name}: {target} is {value.dtype} {list(value.shape)}. "
            "Expected float features [N, C, h, w] or [N, h, w, C]."
        )


def _layout(view: GraphView, target: str, values: Mapping[str, Array]) -> Layout | None:
    for at in view.takers.get(target, []):
        node = view.nodes[at]
        if node.op_type in _CHANNELS_FIRST and node.input[0] == target:
            return "NCHW"
        if node.op_type == "ReduceMean":
            axes = pooled_axes(view, node, 4, ())
            if axes in ((2, 3), (1, 2)):
                return "NCHW" if axes == (2, 3) else "NHWC"
        perm = tuple(attributes(node).get("perm", ())) if node.op_type == "Transpose" else ()
        if perm in ((0, 2, 3, 1), (0, 3, 1, 2)):
            return "NCHW" if perm == (0, 2, 3, 1) else "NHWC"
    tensor = target
    while (node_before := view.maker(tensor)) is not None:
        perm = tuple(attributes(node_before).get("perm", ())) if node_before.op_type == "Transpose" else ()
        if perm in ((0, 2, 3, 1), (0, 3, 1, 2)):
            return "NHWC" if perm == (0, 2, 3, 1) else "NCHW"
        if node_before.op_type in _CHANNELS_FIRST:
            return "NCHW"
        if node_before.op_type == "LayerNormalization":
            return "NHWC"
        if node_before.op_type not in _ELEMENTWISE:
            return None
        tensor = next((item for item in node_before.input if item in view.varying), "")
    return None


def _pooled(view: GraphView, target: str, layout: Layout, values: Mapping[str, Array], path: list[int]) -> str | None:
    takers = {at for at in view.takers[target] if at in set(path)}
    if len(takers) != 1:
        return None
    node = view.nodes[takers.pop()]
    axes = pooled_axes(view, node, 4, values[node.output[0]].shape)
    return str(node.output[0]) if axes == ((2, 3) if layout == "NCHW" else (1, 2)) else None


_SHORT = {"Gemm": "Linear", "MatMul": "Linear", "GlobalAveragePool": "GAP", "ReduceMean": "GAP", "AveragePool": "GAP"}
_SILENT = _RESHAPING | _ROUNDING | {"Transpose", "Concat", "Slice", "Gather", "Add"}
_MOST_NAMED = 8


def _head(view: GraphView, path: list[int], values: Mapping[str, Array]) -> str:
    parts = []
    for at in path:
        node = view.nodes[at]
        if node.op_type == "Conv" and values[node.output[0]].shape[2:] == (1, 1):
            parts.append("Linear")
        elif node.op_type not in _SILENT:
            parts.append(_SHORT.get(node.op_type, node.op_type))
    named = parts if len(parts) <= _MOST_NAMED else [*parts[: _MOST_NAMED - 2], "…", parts[-1]]
    return "+".join(named)
