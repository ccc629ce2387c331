"""Small embedding model of colors, whose outputs can be computed by hand."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from kdedge_runtime.embedding import Embedding
from kdedge_runtime.familiarity import Familiarity
from kdedge_runtime.metadata import Metadata, Outputs
from kdedge_runtime.modalities.image import ImageInput

__all__ = ["CONTRASTS", "ID", "LABELS", "SIDE", "expected_embedding", "expected_map", "write_embedding_model"]

SIDE, POSITIONS = 64, 8
LABELS = ("red", "green", "blue")
ID = "0123456789abcdef"
CONTRASTS = (1.5 * np.eye(3) - 0.5).astype(np.float32)
"""Each feature is the contrast of one channel with the others, so that gray has no direction."""


def write_embedding_model(
    path: Path,
    *,
    identity: str = ID,
    size: int = 3,
    threshold: float | None = 0.6,
    without: str | None = None,
    classes: str | int = "M",
    method: str = "gradient",
) -> Path:
    """Write a model whose embedding is the normalized mean color contrast of an image.

    Args:
        path: file to write.
        identity: id of the embedding in the metadata.
        size: size of the embedding in the metadata; the graph has 3 values.
        threshold: threshold of familiarity and of enrolled classes in the metadata.
        without: output or input to leave out of the graph.
        classes: declared number of prototypes.
        method: saliency method in the metadata.
    """
    spec = ImageInput(SIDE, SIDE, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    stride = SIDE // POSITIONS
    kernel = np.broadcast_to(CONTRASTS[..., None, None], (3, 3, stride, stride)) / np.float32(255 * stride * stride)
    constants = {
        "kernel": np.ascontiguousarray(kernel),
        "prototypes": 5.0 * CONTRASTS,
        "class_index": np.array([-1], dtype=np.int64),
        "zero": np.array(0, dtype=np.int64),
        "shortest": np.array(1e-6, dtype=np.float32),
        "tiny": np.array(1e-12, dtype=np.float32),
        "axes_hw": np.array([2, 3], dtype=np.int64),
        "axes_k": np.array([1], dtype=np.int64),
    }
    node = helper.make_node
    nodes = [
        node("Cast", [spec.name], ["as_float"], to=TensorProto.FLOAT),
        node("Transpose", ["as_float"], ["channels_first"], perm=[0, 3, 1, 2]),
        node("Conv", ["channels_first", "kernel"], ["activations"], strides=[stride, stride]),
        node("ReduceMean", ["activations", "axes_hw"], ["pooled"], keepdims=0),
        node("ReduceL2", ["pooled", "axes_k"], ["pooled_length"]),
        node("Max", ["pooled_length", "tiny"], ["length"]),
        node("Div", ["pooled", "length"], ["embedding"]),
        node("ReduceL2", ["prototypes", "axes_k"], ["measured_lengths"]),
        node("Max", ["measured_lengths", "shortest"], ["prototype_lengths"]),
        node("Div", ["prototypes", "prototype_lengths"], ["directions"]),
        node("Transpose", ["directions"], ["directions_t"], perm=[1, 0]),
        node("MatMul", ["embedding", "directions_t"], ["logits"]),
        node("ReduceMax", ["logits", "axes_k"], ["familiarity"], keepdims=0),
        node("ArgMax", ["logits"], ["top"], axis=1, keepdims=0),
        node("Less", ["class_index", "zero"], ["is_free"]),
        node("Where", ["is_free", "top", "class_index"], ["explained_class"]),
        node("Gather", ["directions", "explained_class"], ["rows"], axis=0),
        node("Div", ["rows", "length"], ["gradient"]),
        node("Unsqueeze", ["gradient", "axes_hw"], ["gradients"]),
        node("Mul", ["activations", "gradients"], ["weighted"]),
        node("ReduceSum", ["weighted", "axes_k"], ["saliency_map"], keepdims=0),
    ]
    value, kinds = helper.make_tensor_value_info, TensorProto
    inputs = [
        value(spec.name, kinds.UINT8, ["N", SIDE, SIDE, 3]),
        # Initializers of the same names are their defaults.
        value("class_index", kinds.INT64, [1]),
        value("prototypes", kinds.FLOAT, [classes, 3]),
    ]
    outputs = [
        value("logits", kinds.FLOAT, ["N", "M"]),
        value("saliency_map", kinds.FLOAT, ["N", POSITIONS, POSITIONS]),
        value("explained_class", kinds.INT64, ["N"]),
        value("embedding", kinds.FLOAT, ["N", 3]),
        value("familiarity", kinds.FLOAT, ["N"]),
    ]
    graph = helper.make_graph(
        nodes,
        "colors",
        [each for each in inputs if each.name != without],
        [each for each in outputs if each.name != without],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    metadata = Metadata(
        LABELS,
        spec,
        Outputs(method, None, None, POSITIONS, POSITIONS),
        task="embedding",
        familiarity=Familiarity("cosine", threshold, known=100 if threshold is not None else 0),
        embedding=Embedding(size, identity, threshold),
    )
    helper.set_model_props(model, metadata.to_props())
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path


def _features(image: np.ndarray) -> np.ndarray:
    """Return the features of an image, `[8, 8, 3]`."""
    stride = SIDE // POSITIONS
    cells = (image / 255.0).reshape(POSITIONS, stride, POSITIONS, stride, 3).mean(axis=(1, 3))
    return np.asarray(cells @ CONTRASTS.T.astype(np.float64))


def expected_embedding(image: np.ndarray) -> np.ndarray:
    """Return the embedding `[3]` of an image of the model's size, in double precision."""
    pooled = _features(image).mean(axis=(0, 1))
    return np.asarray(pooled / np.linalg.norm(pooled))


def expected_map(image: np.ndarray, prototype: np.ndarray) -> np.ndarray:
    """Return the contribution of each position to the similarity to a prototype, `[8, 8]`; their mean is that.

    The graph leaves out the constant factor of the mean over positions.
    """
    features = _features(image)
    pooled = features.mean(axis=(0, 1))
    return np.asarray(features @ prototype / np.linalg.norm(pooled) / np.linalg.norm(prototype))
