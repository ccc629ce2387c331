"""Squeeze-and-excitation as matrix products, since convolutions on one value per channel only add overhead."""

import numpy as np
import onnx_ir as ir

from kdedge_export.onnx_graph.edits import constant_input, initializer, make_node, replace_node

__all__ = ["flatten_squeeze_excite"]

_POINTWISE = {"Relu", "Clip", "HardSigmoid", "Sigmoid", "HardSwish", "Mul", "Add"}


def _is_pooled(value: ir.Value) -> bool:
    """Return True if a computed tensor has one value per channel, `[N, C, 1, 1]`."""
    shape = value.shape if value.const_value is None else None
    return shape is not None and len(shape) == 4 and tuple(shape[2:]) == (1, 1)


def flatten_squeeze_excite(graph: ir.Graph, head: frozenset[str]) -> frozenset[str]:
    """Rewrite operations on pooled values to matrices `[N, C]`.

    Returns:
        The names of these nodes.
    """
    region = [node for node in graph if node.name not in head and _is_pooled(node.outputs[0]) and _is_flat(node)]
    flat = dict[str, ir.Value]()
    for node in region:
        before = []
        for value in node.inputs:
            if value is not None and value.name not in flat and _is_pooled(value):
                flatten = make_node("Flatten", [value], f"{value.name}_flat", f"{value.name}_flatten", axis=1)
                graph.insert_after(value.producer(), flatten)
                flat[value.name] = flatten.outputs[0]
            before.append(value if value is None else flat.get(value.name, value))
        output = node.outputs[0].name
        if node.op_type == "Conv":
            weight = constant_input(node, 1)
            assert weight is not None
            before[1] = initializer(graph, f"{node.inputs[1].name}_matrix", weight[:, :, 0, 0])
            new = make_node("Gemm", before, f"{output}_flat", node.name, transB=1)
        else:
            new = make_node(node.op_type, before, f"{output}_flat", node.name)
            new.attributes.update(node.attributes)
        flat[output] = new.outputs[0]
        shape = initializer(graph, "pooled_shape", np.array([0, -1, 1, 1]))
        replace_node(node, [new, make_node("Reshape", [new.outputs[0], shape], output, f"{output}_unflatten")])
    return frozenset(node.name for node in region)


def _is_flat(node: ir.Node) -> bool:
    """Return True if a node computes the same on a matrix: a 1 × 1 convolution, or an elementwise function."""
    if node.op_type == "Conv":
        weight, given = constant_input(node, 1), node.attributes
        plain = given.get_int("group", 1) == 1 and not any(given.get_ints("pads", [0]))
        return weight is not None and weight.shape[2:] == (1, 1) and plain and _is_pooled(node.inputs[0])
    if node.op_type not in _POINTWISE:
        return False
    inputs = [value for value in node.inputs if value is not None]
    return all(_is_pooled(value) or (value.const_value is not None and value.const_value.size == 1) for value in inputs)
