"""Teachers for time series from other frameworks: layouts, and what is not usable."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from kdedge.models.onnx_model import OnnxClassifier
from kdedge_runtime.errors import ModelFileError
from kdedge_runtime.modalities.timeseries import TimeseriesInput


def write(path: Path, shape: list[int | str], dtype: int = TensorProto.FLOAT, inputs: int = 1) -> Path:
    """Write a linear classifier of the flattened input, whose weights differ everywhere."""
    sides = [side if isinstance(side, int) else 6 for side in shape[1:]]
    array = np.random.default_rng(0).normal(size=(int(np.prod(sides)), 3))
    weight = numpy_helper.from_array(array.astype(helper.tensor_dtype_to_np_dtype(dtype)), "w")
    nodes = [helper.make_node("Flatten", ["x"], ["flat"]), helper.make_node("MatMul", ["flat", "w"], ["product"])]
    nodes.append(helper.make_node("Add", ["product", "y" if inputs > 1 else "product"], ["logits"]))
    ports = [helper.make_tensor_value_info("x", dtype, shape)]
    ports += [helper.make_tensor_value_info("y", dtype, [1])] * (inputs - 1)
    outputs = [helper.make_tensor_value_info("logits", dtype, ["n", 3])]
    graph = helper.make_graph(nodes, "g", ports, outputs, [weight])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), path)
    return path


@pytest.mark.parametrize(
    ("shape", "dtype", "order"),
    [
        (["n", 12, 2], TensorProto.FLOAT, (0, 1)),
        (["n", 2, 12], TensorProto.FLOAT, (1, 0)),
        ([1, 2, 12], TensorProto.FLOAT16, (1, 0)),
    ],
)
def test_layout_is_found_by_the_longer_side(
    tmp_path: Path, shape: list[int | str], dtype: int, order: tuple[int, int]
) -> None:
    teacher = OnnxClassifier.load(write(tmp_path / "t.onnx", shape, dtype), modality="timeseries")
    assert (
        isinstance(teacher.input, TimeseriesInput)
        and teacher.input.shape == (12, 2)
        and teacher.input.column_names == ()
    )
    samples = torch.randn(3, 12, 2, generator=torch.Generator().manual_seed(0))
    weight = np.random.default_rng(0).normal(size=(24, 3)).astype(np.float32)
    logits, maps = teacher(samples)
    expected = np.stack([2 * sample.numpy().transpose(order).ravel() @ weight for sample in samples])
    assert np.allclose(logits.numpy(), expected, atol=1e-4 if dtype == TensorProto.FLOAT else 0.05) and maps is None


def test_single_channel_may_have_no_axis(tmp_path: Path) -> None:
    teacher = OnnxClassifier.load(write(tmp_path / "t.onnx", ["n", 12]), modality="timeseries")
    assert teacher.input.shape == (12, 1)
    assert teacher(torch.randn(2, 12, 1))[0].shape == (2, 3)


@pytest.mark.parametrize(
    ("shape", "dtype", "inputs"),
    [
        (["n", "t", 2], TensorProto.FLOAT, 1),
        (["n", 6, 6], TensorProto.FLOAT, 1),
        (["n", 1, 2, 12], TensorProto.FLOAT, 1),
        (["n", 12, 2], TensorProto.INT32, 1),
        (["n", 12, 2], TensorProto.FLOAT, 2),
    ],
)
def test_other_graphs_are_refused(tmp_path: Path, shape: list[int | str], dtype: int, inputs: int) -> None:
    with pytest.raises(ModelFileError, match=r"t\.onnx"):
        OnnxClassifier.load(write(tmp_path / "t.onnx", shape, dtype, inputs), modality="timeseries")
