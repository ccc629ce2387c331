"""Small explained model that detects and locates primary colors by construction."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from kdedge_runtime.metadata import Metadata, Outputs
from kdedge_runtime.modalities.image import ImageInput

__all__ = ["POSITIONS", "LABELS", "SIDE", "write_color_model"]

SIDE = 64
POSITIONS = 8
LABELS = ("red", "green", "blue")


def write_color_model(
    path: Path,
    *,
    method: str = "cam",
    spec: ImageInput | None = None,
    labels: tuple[str, ...] = LABELS,
    gain: float = 8.0,
    props: dict[str, str] | None = None,
) -> Path:
    """Write a classifier of the dominant primary color, with its map.

    Each class weights its own channel by 1 and the others by -1/2. The map is the closed form of global average
    pooling and a linear layer: `sum_k W[c, k] * A[k]`, whose mean is the logit.
    """
    spec = spec or ImageInput(SIDE, SIDE, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    stride = spec.height // POSITIONS
    weights = gain * (1.5 * np.eye(3, dtype=np.float32) - 0.5)
    pool = np.zeros((3, 3, stride, stride), dtype=np.float32)
    for channel in range(3):
        pool[channel, channel] = 1.0 / (255 * stride * stride)
    constants = {
        "pool": pool,
        "weights": weights,
        "class_index": np.array([-1], dtype=np.int64),
        "zero": np.array(0, dtype=np.int64),
        "axes_hw": np.array([2, 3], dtype=np.int64),
        "axes_k": np.array([1], dtype=np.int64),
    }
    nodes = [
        helper.make_node("Cast", [spec.name], ["as_float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["as_float"], ["channels_first"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["channels_first", "pool"], ["activations"], strides=[stride, stride]),
        helper.make_node("ReduceMean", ["activations", "axes_hw"], ["pooled"], keepdims=0),
        helper.make_node("Transpose", ["weights"], ["weights_t"], perm=[1, 0]),
        helper.make_node("MatMul", ["pooled", "weights_t"], ["logits"]),
    ]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 3])]
    if method != "none":
        nodes += [
            helper.make_node("ArgMax", ["logits"], ["top"], axis=1, keepdims=0),
            helper.make_node("Less", ["class_index", "zero"], ["is_free"]),
            helper.make_node("Where", ["is_free", "top", "class_index"], ["explained_class"]),
            helper.make_node("Gather", ["weights", "explained_class"], ["rows"], axis=0),
            helper.make_node("Unsqueeze", ["rows", "axes_hw"], ["row_maps"]),
            helper.make_node("Mul", ["activations", "row_maps"], ["weighted"]),
            helper.make_node("ReduceSum", ["weighted", "axes_k"], ["saliency_map"], keepdims=0),
        ]
        outputs += [
            helper.make_tensor_value_info("saliency_map", TensorProto.FLOAT, ["N", POSITIONS, POSITIONS]),
            helper.make_tensor_value_info("explained_class", TensorProto.INT64, ["N"]),
        ]
    inputs = [helper.make_tensor_value_info(spec.name, TensorProto.UINT8, ["N", spec.height, spec.width, 3])]
    if method != "none":
        # The initializer of the same name is its default.
        inputs.append(helper.make_tensor_value_info("class_index", TensorProto.INT64, [1]))
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "colour", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    shown = Outputs(method, None, "gap-linear", POSITIONS, POSITIONS) if method != "none" else Outputs("none")
    metadata = Metadata(labels, spec, shown)
    helper.set_model_props(model, metadata.to_props() if props is None else props)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path
