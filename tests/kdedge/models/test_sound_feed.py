"""Teachers for sounds from other frameworks."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from kdedge.models.onnx_model import OnnxClassifier
from kdedge_runtime.errors import ModelFileError
from kdedge_runtime.modalities.audio import AudioInput


def write_graph(path: Path, shape: list[int | str], kind: int = TensorProto.FLOAT) -> Path:
    """Write a graph whose logits are the means of the sounds, times two weights."""
    weights = numpy_helper.from_array(np.array([[1.0, -1.0]], np.float32), "weights")
    nodes = [
        helper.make_node("ReduceMean", ["pcm"], ["mean"], axes=list(range(1, len(shape))), keepdims=0),
        helper.make_node("Reshape", ["mean", "column"], ["rows"]),
        helper.make_node("MatMul", ["rows", "weights"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "means",
        [helper.make_tensor_value_info("pcm", kind, shape)],
        [helper.make_tensor_value_info("logits", kind, ["n", 2])],
        [weights, numpy_helper.from_array(np.array([-1, 1]), "column")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def test_graph_of_pcm_is_a_teacher(tmp_path: Path) -> None:
    teacher = OnnxClassifier.load(write_graph(tmp_path / "a.onnx", ["n", 16_000]), modality="audio")
    assert isinstance(teacher.input, AudioInput)
    assert (teacher.input.rate_hz, teacher.input.samples, teacher.classes) == (16_000, 16_000, 2)
    sounds = torch.randn(3, 16_000)
    logits, maps = teacher(sounds)
    assert maps is None and torch.allclose(logits[:, 0], sounds.mean(dim=1), atol=1e-5)


@pytest.mark.parametrize("shape", [["n", "s"], ["n", 16_001], ["n", 1, 16_000], [1, 3, 32, 32]])
def test_other_inputs_are_refused(shape: list[int | str], tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"Expected one input of floats \[N, S\]"):
        OnnxClassifier.load(write_graph(tmp_path / "a.onnx", shape), modality="audio")
