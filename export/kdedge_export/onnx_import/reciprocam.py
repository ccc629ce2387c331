"""ReciproCAM: the tail is rerun on the features of one position at a time, without a derivative."""

import numpy as np

from kdedge_export.errors import HeadNotSupported
from kdedge_export.onnx_graph.builder import PREFIX, NodeBuilder
from kdedge_export.onnx_graph.graph_index import GraphIndex, shapes_of
from kdedge_export.onnx_graph.graph_input import make_example_feed
from kdedge_export.onnx_import.classifier_graph import ClassifierGraph

__all__ = ["reciprocam"]


def reciprocam(builder: NodeBuilder, view: GraphIndex, parts: ClassifierGraph, one_hot: str) -> None:
    """Add `saliency_map`, float32 `[N, h, w]`: each position's own contribution to the logit, relative to no features.

    Args:
        builder: builder for the nodes.
        view: the graph.
        parts: analysis of the graph.
        one_hot: one-hot explained class of each image, in the shape and type of the logits.

    Raises:
        HeadNotSupported: the tail cannot be rerun by itself.
    """
    if not parts.is_cut:
        raise HeadNotSupported(
            f"ReciproCAM reruns the layers after {parts.target}, but the logits also depend on the image in other "
            "ways. Name a tensor that all paths go through, or remove --target-layer."
        )
    if not parts.has_fixed_size:
        raise HeadNotSupported(
            "ReciproCAM needs a fixed map size, but this graph leaves it dynamic. Export it for one size."
        )
    value = parts.values[parts.target]
    height, width = parts.positions
    runs = height * width + 1  # each position alone, and none
    alone = np.eye(runs, height * width).reshape(runs, height, width)
    one_image = [-1, 1, *value.shape[1:]]
    masks = np.stack([parts.layout.over_positions(mask, 1.0) for mask in alone], axis=1)
    one_position_each = builder.constant(masks.astype(value.dtype))
    masked = builder.add("Mul", builder.reshape(parts.target, one_image), one_position_each)
    names = {parts.target: builder.reshape(masked, [-1, *value.shape[1:]])}
    _run_again(builder, view, parts, names, runs)
    dtype = parts.values[parts.logits].dtype
    by_position = builder.reshape(builder.float32(names[parts.logits], dtype), [-1, runs, parts.classes])
    of_class = builder.add(
        "MatMul", by_position, builder.reshape(builder.float32(one_hot, dtype), [-1, parts.classes, 1])
    )
    each, none = np.arange(runs - 1, dtype=np.int64), np.array([runs - 1], dtype=np.int64)
    added = builder.add(
        "Sub",
        builder.add("Gather", of_class, builder.constant(each), axis=1),
        builder.add("Gather", of_class, builder.constant(none), axis=1),
    )
    builder.add("Identity", builder.reshape(added, [-1, height, width]), name="saliency_map")


def _run_again(
    builder: NodeBuilder, view: GraphIndex, parts: ClassifierGraph, names: dict[str, str], runs: int
) -> None:
    """Copy the tail to other tensors; `names` maps the original tensors to the copies and is extended."""
    batch = _batch_axes(view, parts)
    for at in view.between(parts.target, parts.logits):
        node = view.nodes[at]
        for item in node.input:
            if item not in names and item in batch:
                names[item] = _repeated(builder, parts, item, batch[item], runs)
        inputs = [names.get(name, name) for name in node.input]
        outputs = [f"{PREFIX}again/{name}" if name else "" for name in node.output]
        shape = list(parts.values[node.output[0]].shape)
        if node.op_type == "Reshape" and node.output[0] in batch:
            # The target shape may contain the batch, as a number or computed from another tensor.
            shape[batch[node.output[0]]] = -1
            inputs[1] = builder.constant(np.array(shape, dtype=np.int64))
        builder.copy(node, inputs, outputs)
        names.update(zip(node.output, outputs, strict=True))


def _batch_axes(view: GraphIndex, parts: ClassifierGraph) -> dict[str, int]:
    """Return the axis of each tail tensor that scales with the batch, alone or multiplied by heads."""
    path = [view.nodes[at] for at in view.between(parts.target, parts.logits)]
    tensors = {item for node in path for item in (*node.input, *node.output) if item and view.value(item) is None}
    images = len(parts.values[parts.target])
    if parts.port.shape[0] is not None:  # no other batch size can be tried
        made = {item for node in path for item in node.output if item}
        return {item: 0 for item in made if parts.values[item].shape[:1] == (images,)}
    more = shapes_of(view.model, sorted(tensors), make_example_feed(parts.port, None, images + 1), "the graph")
    grown = {
        item: [
            axis for axis, pair in enumerate(zip(parts.values[item].shape, more[item], strict=True)) if len({*pair}) > 1
        ]
        for item in tensors
    }
    return {item: axes[0] for item, axes in grown.items() if axes}


def _repeated(builder: NodeBuilder, parts: ClassifierGraph, tensor: str, axis: int, runs: int) -> str:
    """Repeat a tensor that depends only on the batch size, such as a class token, once per run."""
    shape = parts.values[tensor].shape
    if axis != 0:
        raise HeadNotSupported(
            f"ReciproCAM reruns the layers after {parts.target}, but {tensor} {list(shape)}, which they need, cannot "
            "be repeated. Remove --method, or name a later tensor: --target-layer TENSOR."
        )
    every = builder.constant(np.array([1, runs] + [1] * (len(shape) - 1), dtype=np.int64))
    return builder.reshape(builder.add("Tile", builder.unsqueeze(tensor, 1), every), [-1, *shape[1:]])
