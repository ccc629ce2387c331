"""Model files with reference frames, as written by `kdedge export`."""

import hashlib
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from kdedge_runtime.bundle import format_checksums
from kdedge_runtime.diagnostics.reference_frames import record_reference_frames
from kdedge_runtime.metadata import Metadata, Outputs
from kdedge_runtime.modalities.image import ImageInput

SIDE = 8
_WEIGHTS = np.random.default_rng(0).choice([-127, 127, 127], size=(SIDE * SIDE * 3, 3)).astype(np.int8)


def with_reference_frames(path: Path, **changes: Any) -> Path:
    """Write reference frames into a model file, modified by `changes`."""
    return with_metadata(path, reference_frames=record_reference_frames(path) | changes)


def with_metadata(path: Path, **changes: Any) -> Path:
    """Change the metadata of a model file."""
    model = onnx.load(path)
    metadata = Metadata.from_props({entry.key: entry.value for entry in model.metadata_props})
    helper.set_model_props(model, replace(metadata, **changes).to_props())
    onnx.save(model, path)
    return path


def write_bundle(path: Path, model: Path) -> Path:
    """Write an unsigned bundle of one model file."""
    content = model.read_bytes()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model.onnx", content)
        archive.writestr("SHA256SUMS", format_checksums({"model.onnx": hashlib.sha256(content).hexdigest()}))
    return path


def wide_model(path: Path, classes: int) -> Path:
    """Write a model with many classes and no map."""
    spec = ImageInput(SIDE, SIDE, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    weights = np.random.default_rng(0).normal(size=(3, classes)).astype(np.float32)
    nodes = [
        helper.make_node("Cast", [spec.name], ["as_float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["as_float", "axes"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "weights"], ["logits"]),
    ]
    constants = {"weights": weights, "axes": np.array([1, 2], dtype=np.int64)}
    return _write(path, nodes, constants, spec, tuple(map(str, range(classes))))


def saturating_model(path: Path) -> Path:
    """Write a quantized product whose pairs of uint8 × int8 products exceed 16 bits: 2 × 255 × 127 is 64,770."""
    spec = ImageInput(SIDE, SIDE, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    constants = {
        "flat": np.array([0, -1], dtype=np.int64),
        "one": np.array(1.0, dtype=np.float32),
        "zero": np.array(0, dtype=np.uint8),
        "weights": _WEIGHTS,
        "scale": np.array(1.0, dtype=np.float32),
        "weights_zero": np.array(0, dtype=np.int8),
    }
    nodes = [
        helper.make_node("Cast", [spec.name], ["as_float"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["as_float", "flat"], ["row"]),
        helper.make_node("QuantizeLinear", ["row", "one", "zero"], ["row_q"]),
        helper.make_node("DequantizeLinear", ["row_q", "one", "zero"], ["row_dq"]),
        helper.make_node("DequantizeLinear", ["weights", "scale", "weights_zero"], ["weights_dq"]),
        helper.make_node("MatMul", ["row_dq", "weights_dq"], ["logits"]),
    ]
    return _write(path, nodes, constants, spec, ("a", "b", "c"))


def reference_of_saturating_model(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1).astype(np.int64) @ _WEIGHTS.astype(np.int64)


def _write(
    path: Path, nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], spec: ImageInput, labels: tuple[str, ...]
) -> Path:
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info(spec.name, TensorProto.UINT8, ["N", SIDE, SIDE, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", len(labels)])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, Metadata(labels, spec, Outputs("none")).to_props())
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path
