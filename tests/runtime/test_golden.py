"""Golden frames: drawn the same everywhere, small in the file, and what they say is what the file says."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from golden_files import with_golden, with_metadata
from onnx import TensorProto, helper, numpy_helper

from kdedge_runtime.errors import ModelFileError
from kdedge_runtime.golden import Golden, draw_frame, mean_error, record
from kdedge_runtime.metadata import ImageInput
from kdedge_runtime.model import Model


def test_frames_are_the_same_on_every_machine_and_in_every_version() -> None:
    # A change of these bytes breaks the self-test of every file that was ever exported.
    drawn = draw_frame(0, 64, 48)
    assert (drawn.shape, drawn.dtype) == ((64, 48, 3), np.uint8)
    assert hashlib.sha256(drawn.tobytes()).hexdigest() == FIRST_FRAME_SHA256


def test_frames_differ_and_use_the_whole_range() -> None:
    frames = np.stack([draw_frame(seed, 96, 96) for seed in range(4)])
    assert len({frame.tobytes() for frame in frames}) == 4
    assert frames.min() < 20 and frames.max() > 235
    assert np.abs(np.diff(frames[0].astype(int), axis=0)).max() > 60, "there are hard edges"


def test_a_file_brings_what_it_says_itself(write_model: Callable[..., Path]) -> None:
    model = Model.load(with_golden(write_model()), threads=1)
    golden = Golden.of(model)
    assert golden.images.shape == (4, 64, 64, 3)
    said = model.predict(golden.images)
    np.testing.assert_allclose(golden.logits, said.logits, rtol=1e-4, atol=1e-5)
    assert said.saliency_map is not None and golden.saliency_map is not None
    np.testing.assert_allclose(golden.saliency_map, said.saliency_map, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(golden.explained_class, said.explained_class)
    assert golden.logits_rounding < 1e-5 and golden.map_rounding < 1e-5


def test_a_file_without_a_map_has_frames_without_one(write_model: Callable[..., Path]) -> None:
    golden = Golden.of(Model.load(with_golden(write_model(method="none")), threads=1))
    assert golden.saliency_map is None and golden.logits.shape == (4, 3)


def test_frames_take_little_of_the_file(write_model: Callable[..., Path]) -> None:
    assert len(json.dumps(record(write_model()))) < 5_000


def test_with_very_many_classes_there_are_fewer_frames(tmp_path: Path) -> None:
    path = wide_model(tmp_path / "wide.onnx", classes=9_000)
    golden = Golden.of(Model.load(with_golden(path), threads=1))
    assert golden.logits.shape == (1, 9_000)
    assert len(json.dumps(record(path))) < 60_000


def test_int8_frames_hold_exact_sums(tmp_path: Path) -> None:
    """What 16-bit sums of pairs cannot hold, with weights and activations at their limits, is recorded exactly."""
    path = saturating_model(tmp_path / "qdq.onnx")
    golden = record(path)
    model = Model.load(with_golden(path), threads=1)
    expected = reference_of_saturating_model(Golden.of(model).images)
    np.testing.assert_allclose(Golden.of(model).logits, expected, rtol=1e-5)
    assert golden["logits_rounding"] < 0.01


@pytest.mark.parametrize(
    "changes",
    [
        {"frames": 0},
        {"frames": 3},
        {"logits": "AAAA"},
        {"logits": "not base64"},
        {"explained_class": [0]},
        {"saliency_map": None},
        {"images_sha256": "0" * 64},
    ],
)
def test_damaged_frames_are_told(write_model: Callable[..., Path], changes: dict[str, object]) -> None:
    with pytest.raises(ModelFileError, match=r"golden frames of .* are damaged .*Export it again"):
        Golden.of(Model.load(with_golden(write_model(), **changes)))


def test_a_file_without_frames_is_told_what_to_do(model: Model) -> None:
    with pytest.raises(ModelFileError, match=r"brings no golden frames .* Export it again"):
        Golden.of(model)


def test_golden_frames_that_are_no_table_damage_the_file(write_model: Callable[..., Path]) -> None:
    with pytest.raises(ModelFileError, match="metadata is damaged"):
        Model.load(with_metadata(write_model(), golden=[1]))


def test_the_mean_error_is_relative_and_keeps_what_is_not_a_number() -> None:
    expected = np.array([[0.0, 10.0], [0.0, 1.0]], dtype=np.float32)
    said = np.array([[0.0, 11.0], [0.3, 1.0]], dtype=np.float32)
    assert mean_error(said, expected) == pytest.approx((0.1 + 0.3) / 2)
    said[0, 0] = np.nan
    assert np.isnan(mean_error(said, expected))


FIRST_FRAME_SHA256 = "1a12f859405a12941bf21f6488f2ed039f0ac105cbd798ef0e7a5f5fdce25db4"
SIDE = 8


def wide_model(path: Path, classes: int) -> Path:
    """A model without a map and with very many classes."""
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
    """A quantized product whose pairs of uint8 × int8 products leave 16 bits: 2 × 255 × 127 is 64,770."""
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


_WEIGHTS = np.random.default_rng(0).choice([-127, 127, 127], size=(SIDE * SIDE * 3, 3)).astype(np.int8)


def reference_of_saturating_model(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1).astype(np.int64) @ _WEIGHTS.astype(np.int64)


def _write(
    path: Path, nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], spec: ImageInput, labels: tuple[str, ...]
) -> Path:
    from kdedge_runtime.metadata import Metadata, Outputs

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
    assert ort.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    return path
