"""Graph without its map: same logits, fewer nodes and a valid ONNX file."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from kdedge_runtime.diagnostics.plain_model import keep_output
from kdedge_runtime.drawing.reference_image import draw_reference_image


def test_logits_are_unchanged_without_map(model_path: Path) -> None:
    content = keep_output(model_path.read_bytes(), "logits")
    plain = onnx.load_from_string(content)
    onnx.checker.check_model(plain)
    assert [output.name for output in plain.graph.output] == ["logits"]
    assert [node.op_type for node in plain.graph.node] == [
        "Cast",
        "Transpose",
        "Conv",
        "ReduceMean",
        "Transpose",
        "MatMul",
    ]

    image = {"image": draw_reference_image(1, 64, 64)[None]}
    whole, less = (
        ort.InferenceSession(each, providers=["CPUExecutionProvider"]) for each in (model_path.read_bytes(), content)
    )
    np.testing.assert_array_equal(whole.run(["logits"], image)[0], less.run(None, image)[0])


def test_rest_of_the_file_is_unchanged(model_path: Path) -> None:
    whole = onnx.load(model_path)
    plain = onnx.load_from_string(keep_output(model_path.read_bytes(), "logits"))
    assert plain.metadata_props == whole.metadata_props and plain.opset_import == whole.opset_import
    assert plain.graph.initializer == whole.graph.initializer and plain.graph.input == whole.graph.input


def test_any_output_can_be_kept(model_path: Path) -> None:
    plain = onnx.load_from_string(keep_output(model_path.read_bytes(), "saliency_map"))
    onnx.checker.check_model(plain)
    assert [output.name for output in plain.graph.output] == ["saliency_map"]


def test_file_without_map_is_unchanged(write_model: Callable[..., Path]) -> None:
    content = write_model(method="none").read_bytes()
    assert keep_output(content, "logits") == content


def test_long_fields_are_encoded_correctly(tmp_path: Path) -> None:
    # Lengths encoded in two and three bytes.
    value = helper.make_tensor("w", TensorProto.FLOAT, [100_000], np.zeros(100_000, dtype=np.float32))
    nodes = [helper.make_node("Identity", ["w"], ["a"]), helper.make_node("Identity", ["a"], ["b"], name="n" * 300)]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [100_000]) for name in "ab"]
    model = helper.make_model(helper.make_graph(nodes, "g", [], outputs, [value]))
    kept = onnx.load_from_string(keep_output(model.SerializeToString(), "b"))
    assert [node.name for node in kept.graph.node] == ["", "n" * 300]
    assert len(onnx.load_from_string(keep_output(model.SerializeToString(), "a")).graph.node) == 1


def test_missing_output_raises(model_path: Path) -> None:
    with pytest.raises(ValueError, match="no output boxes"):
        keep_output(model_path.read_bytes(), "boxes")


def test_node_with_subgraph_is_rejected() -> None:
    inner = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])], "inner", [], [helper.make_tensor_value_info("y", 1, [1])]
    )
    node = helper.make_node("If", ["c"], ["z"], then_branch=inner, else_branch=inner)
    graph = helper.make_graph([node], "g", [], [helper.make_tensor_value_info("z", 1, [1])])
    with pytest.raises(ValueError, match="subgraph"):
        keep_output(helper.make_model(graph).SerializeToString(), "z")


@pytest.mark.parametrize("content", [b"", b"\xff", b"\x3a\xff", b"\x0b", b"not a model at all", b"\xff" * 20])
def test_invalid_file_raises(content: bytes) -> None:
    with pytest.raises(ValueError, match="the file"):
        keep_output(content, "logits")
