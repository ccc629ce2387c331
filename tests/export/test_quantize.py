"""int8 keeps the answer and the reason: the body is quantized, the head and the map are not."""

import hashlib
from collections.abc import Callable, Iterator

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from small_nets import CHANNELS, CLASSES, Export

from kdedge_export.graph import save_model
from kdedge_export.quantize import Recipe, quantize
from kdedge_export.validate.metrics import agreement, map_pearson
from kdedge_runtime import Metadata, Model
from kdedge_runtime.errors import UsageError

Draw = Callable[[int, int], np.ndarray]
FLOAT_HEAD = {"ReduceMean", "Gemm", "ArgMax", "Gather", "MatMul"}


@pytest.fixture(scope="module")
def calibration(pictures: Draw) -> np.ndarray:
    return pictures(48, 100)


@pytest.fixture(scope="module")
def full_range(export: Callable[[str], Export], calibration: np.ndarray) -> tuple[onnx.ModelProto, dict]:
    return quantize(export("linear").graph, calibration, Recipe(reduce_range=False))


@pytest.fixture(scope="module", params=["linear", "every activation", "pools a function"])
def pair(request: pytest.FixtureRequest, export, calibration, tmp_path_factory) -> tuple[Export, Model, list[int]]:
    """An export, its int8 file, and what the progress was told."""
    fp32, told = export(request.param), []
    quantized, note = quantize(fp32.graph, calibration, Recipe(), told.append)
    path = tmp_path_factory.mktemp("int8") / "model.int8.onnx"
    metadata = Metadata(
        fp32.metadata.labels, fp32.metadata.input, fp32.metadata.outputs, note, fp32.metadata.lineage, temperature=1.5
    )
    save_model(quantized, metadata, path)
    return fp32, Model.load(path, threads=1), told


def float_region(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """All nodes that the outputs depend on without a dequantization between."""
    producers = {output: node for node in model.graph.node for output in node.output}
    wanted, region = [output.name for output in model.graph.output], {}
    while wanted:
        node = producers.get(wanted.pop())
        if node is not None and node.op_type != "DequantizeLinear" and node.name not in region:
            region[node.name] = node
            wanted += node.input
    return list(region.values())


def kernels(model: onnx.ModelProto) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    """Quantized weights, scales and quantized axis of every convolution."""
    values = {tensor.name: tensor for tensor in model.graph.initializer}
    producers = {output: node for node in model.graph.node for output in node.output}
    for node in model.graph.node:
        if node.op_type == "Conv":
            dequantize = producers[node.input[1]]
            assert dequantize.op_type == "DequantizeLinear"
            axis = next(attribute.i for attribute in dequantize.attribute if attribute.name == "axis")
            weight, scale = (numpy_helper.to_array(values[name]) for name in dequantize.input[:2])
            yield weight, scale, axis


def test_the_head_and_the_map_stay_float(pair: tuple[Export, Model, list[int]]) -> None:
    model = onnx.load(pair[1].path)
    region = float_region(model)
    operations = {node.op_type for node in region}
    assert operations >= FLOAT_HEAD
    assert not operations & {"QuantizeLinear", "Conv", "QLinearConv"}
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in region:
        if node.op_type in {"Gemm", "MatMul", "Gather"}:
            stored = [weights[name].data_type for name in node.input if name in weights]
            assert set(stored) <= {onnx.TensorProto.FLOAT, onnx.TensorProto.INT64}


def test_the_body_is_quantized_per_channel(pair: tuple[Export, Model, list[int]]) -> None:
    found = list(kernels(onnx.load(pair[1].path)))
    assert [weight.shape[0] for weight, _, _ in found] == [8, CHANNELS]
    for weight, scale, axis in found:
        assert weight.dtype == np.int8
        assert scale.shape == (weight.shape[0],) and axis == 0
        assert len(set(scale.tolist())) > 1, "every channel has the same scale"


def test_every_convolution_reads_uint8(pair: tuple[Export, Model, list[int]]) -> None:
    model = onnx.load(pair[1].path)
    producers = {output: node for node in model.graph.node for output in node.output}
    zeros = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Conv":
            dequantize = producers[node.input[0]]
            assert dequantize.op_type == "DequantizeLinear"
            assert zeros[dequantize.input[2]] == onnx.TensorProto.UINT8


def test_the_answer_and_the_map_stay_close(pair: tuple[Export, Model, list[int]], pictures: Draw) -> None:
    fp32, int8, _ = pair
    images = pictures(64, 200)
    exact, coarse = fp32.model.predict(images, 3), int8.predict(images, 3)
    assert agreement(exact.logits, coarse.logits) >= 0.9
    pearson = map_pearson(exact.saliency_map, coarse.saliency_map)
    # Not the mean: where a random net's slopes change sign, a map may turn over.
    assert np.median(pearson) >= 0.99 and np.percentile(pearson, 10) >= 0.9
    # It is another model: the same numbers would mean that nothing was quantized.
    assert np.abs(exact.saliency_map - coarse.saliency_map).max() > 1e-4 * np.abs(exact.saliency_map).max()


def test_metadata_and_the_default_class_survive(pair: tuple[Export, Model, list[int]], pictures: Draw) -> None:
    fp32, int8, _ = pair
    assert int8.metadata.quantization is not None
    assert (int8.metadata.labels, int8.metadata.input, int8.metadata.outputs, int8.metadata.temperature) == (
        fp32.metadata.labels,
        fp32.metadata.input,
        fp32.metadata.outputs,
        1.5,
    )
    images = pictures(3, 300)
    free = int8.predict(images)
    np.testing.assert_array_equal(free.explained_class, free.logits.argmax(axis=1))
    for index in range(CLASSES):
        np.testing.assert_array_equal(int8.predict(images, index).explained_class, index)
    assert free.saliency_map is not None and free.saliency_map.dtype == np.float32


def test_the_file_is_sound_and_says_nothing_of_the_machine(
    pair: tuple[Export, Model, list[int]], own_paths: tuple[bytes, ...]
) -> None:
    path = pair[1].path
    onnx.checker.check_model(onnx.load(path), full_check=True)
    content = path.read_bytes()
    for place in own_paths:
        assert place not in content
    model = onnx.load_from_string(content)
    assert model.producer_name == "kdedge"
    assert all(entry.key.startswith("kdedge.") for entry in model.metadata_props)


def test_the_note_says_how_it_was_done(full_range: tuple[onnx.ModelProto, dict], calibration: np.ndarray) -> None:
    _, note = full_range
    assert note == {
        "format": "qdq",
        "activations": "uint8",
        "weights": "int8",
        "per_channel": True,
        "calibration": "minmax",
        "calibration_sha256": hashlib.sha256(calibration.tobytes()).hexdigest(),
        "calibration_images": len(calibration),
        "reduce_range": False,
    }


def test_a_reduced_range_keeps_weights_to_seven_bits(
    pair: tuple[Export, Model, list[int]], full_range: tuple[onnx.ModelProto, dict]
) -> None:
    for weight, _, _ in kernels(onnx.load(pair[1].path)):
        assert np.abs(weight.astype(int)).max() == 64
    for weight, _, _ in kernels(full_range[0]):
        assert np.abs(weight.astype(int)).max() == 127


def test_progress_counts_the_calibration_images(pair: tuple[Export, Model, list[int]], calibration: np.ndarray) -> None:
    assert sum(pair[2]) == len(calibration)


def test_a_graph_without_a_map_is_quantized_up_to_its_last_layer(
    export: Callable[[str], Export], calibration: np.ndarray, pictures: Draw, tmp_path
) -> None:
    plain = export("plain")
    quantized, note = quantize(plain.graph, calibration, Recipe())
    path = tmp_path / "plain.int8.onnx"
    save_model(quantized, Metadata(plain.metadata.labels, plain.metadata.input, plain.metadata.outputs, note), path)
    assert len(list(kernels(quantized))) == 2
    assert "Gemm" in {node.op_type for node in float_region(quantized)}
    images = pictures(64, 200)
    assert agreement(plain.model.predict(images).logits, Model.load(path).predict(images).logits) >= 0.9


def test_without_calibration_images_nothing_is_quantized(
    export: Callable[[str], Export], calibration: np.ndarray
) -> None:
    with pytest.raises(UsageError, match=r"needs calibration images and got none.*--data DIR"):
        quantize(export("linear").graph, calibration[:0], Recipe())
