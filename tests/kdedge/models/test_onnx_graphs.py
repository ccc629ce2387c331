"""ONNX teachers built by hand: graphs that are rejected, and outputs detected by value."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from kdedge.models.onnx_model import OnnxClassifier
from kdedge_runtime.errors import ModelFileError
from kdedge_runtime.modalities.image import ImageInput


def graph(
    inputs: dict[str, tuple[int, list[Any]]],
    outputs: dict[str, list[Any]],
    nodes: Callable[[], list[onnx.NodeProto]],
) -> onnx.ModelProto:
    """Build a graph from nodes; outputs are float."""
    made = helper.make_graph(
        nodes(),
        "by_hand",
        [helper.make_tensor_value_info(name, *described) for name, described in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def identity(*names: str) -> Callable[[], list[onnx.NodeProto]]:
    return lambda: [helper.make_node("Identity", ["x"], [name]) for name in names]


def flatten(*names: str) -> Callable[[], list[onnx.NodeProto]]:
    return lambda: [helper.make_node("Flatten", ["x"], [name]) for name in names]


class TestRefused:
    @pytest.mark.parametrize(
        ("inputs", "outputs", "nodes", "message"),
        [
            (
                {"x": (TensorProto.FLOAT, ["n", 80, 3000])},
                {"y": ["n", 80, 3000]},
                identity("y"),
                r"its inputs are x float32 \['\?', 80, 3000\]\. Expected one input",
            ),
            (
                {"x": (TensorProto.FLOAT, ["n", 1, 28, 28])},
                {"y": ["n", 784]},
                flatten("y"),
                r"not usable as a teacher: it takes x \['\?', 1, 28, 28\]\. Expected color images",
            ),
            (
                {"x": (TensorProto.FLOAT, ["n", 3, 8, 8]), "mask": (TensorProto.FLOAT, ["n"])},
                {"y": ["n", 192], "kept": ["n"]},
                lambda: [helper.make_node("Flatten", ["x"], ["y"]), helper.make_node("Identity", ["mask"], ["kept"])],
                r"its inputs are x .*, mask",
            ),
            (
                {"x": (TensorProto.DOUBLE, ["n", 3, 8, 8])},
                {"y": ["n", 1]},
                lambda: [
                    helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
                    helper.make_node("Flatten", ["f"], ["y"]),
                ],
                r"its inputs are x float64",
            ),
            (
                {"x": (TensorProto.FLOAT, ["n", 3, 8, 8])},
                {"y": ["n", 3, 8, 8]},
                identity("y"),
                r"is not a classifier: for 2 images it returns y float32 \[2, 3, 8, 8\]",
            ),
            (
                {"x": (TensorProto.FLOAT, ["n", 3, 8, 8])},
                {"a": ["n", 192], "b": ["n", 192]},
                flatten("a", "b"),
                r"outputs are a float32 \[2, 192\], b float32 \[2, 192\]\. Choose one of a, b: .* --head a",
            ),
        ],
        ids=["sound", "grey", "two inputs", "double", "segmentation", "two answers"],
    )
    def test_non_classifiers_are_rejected(
        self,
        tmp_path: Path,
        inputs: dict[str, tuple[int, list[Any]]],
        outputs: dict[str, list[Any]],
        nodes: Callable[[], list[onnx.NodeProto]],
        message: str,
    ) -> None:
        onnx.save(graph(inputs, outputs, nodes), tmp_path / "m.onnx")
        with pytest.raises(ModelFileError, match=message):
            OnnxClassifier.load(tmp_path / "m.onnx", ImageInput(8, 8, (0.0,) * 3, (1.0,) * 3))

    def test_failing_graph_is_rejected(self, tmp_path: Path) -> None:
        def reshape() -> list[onnx.NodeProto]:
            shape = helper.make_tensor("s", TensorProto.INT64, [2], [1, 192])
            return [
                helper.make_node("Constant", [], ["shape"], value=shape),
                helper.make_node("Reshape", ["x", "shape"], ["y"]),
            ]

        onnx.save(graph({"x": (TensorProto.FLOAT, ["n", 3, 8, 8])}, {"y": [1, 192]}, reshape), tmp_path / "m.onnx")
        with pytest.raises(ModelFileError, match=r"fails on x \[2, 3, 8, 8\]: .*dynamic batch"):
            OnnxClassifier.load(tmp_path / "m.onnx")

    def test_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(ModelFileError, match=r"no model file .*nowhere\.onnx"):
            OnnxClassifier.load(tmp_path / "nowhere.onnx")

    def test_damaged_file(self, tmp_path: Path) -> None:
        (tmp_path / "m.onnx").write_bytes(b"not a model")
        with pytest.raises(ModelFileError, match=r"m\.onnx is not an ONNX model"):
            OnnxClassifier.load(tmp_path / "m.onnx")

    def test_unknown_operator(self, tmp_path: Path) -> None:
        unknown = graph(
            {"x": (TensorProto.FLOAT, ["n", 3, 8, 8])},
            {"y": ["n", 192]},
            lambda: [helper.make_node("Unheard", ["x"], ["y"])],
        )
        onnx.save(unknown, tmp_path / "m.onnx")
        with pytest.raises(ModelFileError, match=r"onnxruntime \S+ cannot load .*Unheard"):
            OnnxClassifier.load(tmp_path / "m.onnx")


def test_probabilities_are_detected_by_value(tmp_path: Path) -> None:
    """A graph without softmax has non-negative outputs that do not sum to one."""
    onnx.save(
        graph(
            {"x": (TensorProto.FLOAT, ["n", 3, 2, 2])},
            {"y": ["n", 12]},
            lambda: [helper.make_node("Abs", ["x"], ["a"]), helper.make_node("Flatten", ["a"], ["y"])],
        ),
        tmp_path / "m.onnx",
    )
    teacher = OnnxClassifier.load(tmp_path / "m.onnx", ImageInput(2, 2, (0.0,) * 3, (1.0 / 255,) * 3))
    pixels = torch.arange(12, dtype=torch.uint8).reshape(1, 2, 2, 3)
    assert np.allclose(teacher(pixels)[0].numpy(), pixels.permute(0, 3, 1, 2).flatten(1).numpy(), atol=1e-4)
