"""Storage of dense weights in int8, for networks whose activations stay in float32.

The contributions of a dense network add up to its logits only if both are computed with the same weights and
activations. Each weight is therefore stored once, with one scale per output, and converted for all of its readers.
"""

import numpy as np
import onnx
from onnx import helper, numpy_helper

__all__ = ["store_int8_weights"]

_MIN_WEIGHTS = 128
"""Minimum number of weights; below it, scales and the conversion need more room than they save."""


def store_int8_weights(model: onnx.ModelProto, largest: int) -> onnx.ModelProto:
    """Return a copy of a graph whose dense weights `[out, in]` are int8.

    Args:
        model: float32 graph.
        largest: largest magnitude of an int8 weight.
    """
    stored = onnx.ModelProto()
    stored.CopyFrom(model)
    graph = stored.graph
    dense = {node.input[1] for node in graph.node if node.op_type == "Gemm" and _is_transposed(node)}
    for initializer in [each for each in graph.initializer if each.name in dense]:
        weight = numpy_helper.to_array(initializer)
        if weight.dtype != np.float32 or weight.size < _MIN_WEIGHTS:
            continue
        name = initializer.name
        scale = np.maximum(np.abs(weight).max(axis=1) / largest, np.finfo(np.float32).tiny).astype(np.float32)
        levels = np.clip(np.rint(weight / scale[:, None]), -largest, largest).astype(np.int8)
        initializer.CopyFrom(numpy_helper.from_array(levels, f"{name}_quantized"))
        graph.initializer.append(numpy_helper.from_array(scale, f"{name}_scale"))
        converted = helper.make_node(
            "DequantizeLinear", [f"{name}_quantized", f"{name}_scale"], [name], f"{name}_dequantized", axis=0
        )
        graph.node.insert(0, converted)
    return stored


def _is_transposed(node: onnx.NodeProto) -> bool:
    return any(attribute.name == "transB" and attribute.i == 1 for attribute in node.attribute)
