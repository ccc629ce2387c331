"""Class weights of a linear classifier, independent of any image."""

from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from kdedge_export.onnx_graph.graph_index import Array, GraphIndex
from kdedge_export.onnx_graph.node_attributes import attributes

__all__ = ["ClassWeights", "class_weights"]


@dataclass(frozen=True)
class ClassWeights:
    """Last dense layer of a classifier."""

    layer: str
    shares: NDArray[np.float64]
    """Share `[K, C]` of each feature in a class's weight, `|w_ci| / Σ_j |w_cj|`; rows sum to 1."""
    weights: NDArray[np.float64]
    """Signed weights `[K, C]`."""

    def features_for(self, share: float) -> NDArray[np.int64]:
        """Return the number of features that hold this share of each class's weight, `[K]`."""
        ordered = np.sort(self.shares, axis=1)[:, ::-1].cumsum(axis=1)
        counted: NDArray[np.int64] = (ordered < share - 1e-9).sum(axis=1) + 1
        return counted


def class_weights(model: onnx.ModelProto, classes: int) -> ClassWeights | None:
    """Return the last dense layer with one row per class; None if the weights are not constants."""
    view = GraphIndex(model)
    for node in reversed(view.nodes):
        if node.op_type not in ("Gemm", "MatMul", "Conv") or node.output[0] not in view.varying:
            continue
        weight = _constant(view, node.input[1])
        if weight is None:
            continue
        if node.op_type == "Conv":
            matrix = weight.reshape(len(weight), -1) if weight.shape[2:] == (1, 1) else weight[..., 0]
        else:
            matrix = weight if node.op_type == "Gemm" and attributes(node).get("transB", 0) else weight.T
        if matrix.ndim == 2 and len(matrix) == classes:
            wide = matrix.astype(np.float64)
            total = np.abs(wide).sum(axis=1, keepdims=True)
            return ClassWeights(node.name or node.output[0], np.abs(wide) / np.where(total > 0, total, 1.0), wide)
    return None


def _constant(view: GraphIndex, tensor: str) -> Array | None:
    """Return the values of a weight tensor, dequantized if it is stored as bytes."""
    maker = view.producer(tensor)
    if maker is None or maker.op_type != "DequantizeLinear":
        return view.value(tensor)
    quantized, scale = view.value(maker.input[0]), view.value(maker.input[1])
    zero = view.value(maker.input[2]) if len(maker.input) > 2 else np.zeros_like(scale)
    if quantized is None or scale is None or zero is None:
        return None
    shape = [1] * quantized.ndim
    if scale.ndim == 1:
        shape[attributes(maker).get("axis", 1)] = -1
    return np.asarray((quantized.astype(np.float32) - zero.astype(np.float32).reshape(shape)) * scale.reshape(shape))
