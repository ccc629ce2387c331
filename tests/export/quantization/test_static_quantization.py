"""Test static quantization: int8 body, fp32 head and map, close to the fp32 model."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from small_nets import CHANNELS, CLASSES, Export

from kdedge_export.metrics.agreement import agreement
from kdedge_export.metrics.map_similarity import map_pearson
from kdedge_export.quantization import QuantizationRecipe, Quantized, quantize
from kdedge_export.quantization.calibration_ranges import METHODS
from kdedge_export.torch_export import save_model
from kdedge_runtime import Metadata, Model
from kdedge_runtime.errors import UsageError

Draw = Callable[[int, int], np.ndarray]
FLOAT_HEAD = {"ReduceMean", "Gemm", "ArgMax", "Gather", "MatMul"}
FILTERS, OUTPUTS = 8, 2
"""Filters of the first convolution, and its output positions per group of four pixels."""


@dataclass(frozen=True)
class Pair:
    """Exported model and its int8 version."""

    fp32: Export
    int8: Model
    quantized: Quantized
    steps: list[tuple[str, int, int]]


@pytest.fixture(scope="module")
def calibration(pictures: Draw) -> np.ndarray:
    return pictures(48, 100)


@pytest.fixture(scope="module")
def full_range(export: Callable[[str], Export], calibration: np.ndarray, pictures: Draw) -> Quantized:
    return quantize(export("linear").graph, calibration, pictures(16, 150), QuantizationRecipe(reduce_range=False))


@pytest.fixture(scope="module", params=["linear", "every activation", "pools a function", "hard swish", "swish"])
def pair(request: pytest.FixtureRequest, export, calibration, pictures, tmp_path_factory) -> Pair:
    fp32, steps = export(request.param), []
    quantized = quantize(
        fp32.graph, calibration, pictures(16, 150), QuantizationRecipe(), progress=lambda *step: steps.append(step)
    )
    return Pair(fp32, saved(quantized, fp32, tmp_path_factory.mktemp("int8")), quantized, steps)


def saved(quantized: Quantized, fp32: Export, folder) -> Model:
    path = folder / "model.int8.onnx"
    metadata = Metadata(
        fp32.metadata.labels,
        fp32.metadata.input,
        fp32.metadata.outputs,
        quantized.note,
        fp32.metadata.lineage,
        temperature=1.5,
    )
    save_model(quantized.model, metadata, path)
    return Model.load(path, threads=1, exact_sums=True)


def float_region(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Return all nodes that the outputs depend on without dequantization in between."""
    producers = {output: node for node in model.graph.node for output in node.output}
    wanted, region = [output.name for output in model.graph.output], {}
    while wanted:
        node = producers.get(wanted.pop())
        if node is not None and node.op_type != "DequantizeLinear" and node.name not in region:
            region[node.name] = node
            wanted += node.input
    return list(region.values())


def kernels(model: onnx.ModelProto) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    """Yield quantized weights, scales and quantization axis of each convolution."""
    values = {tensor.name: tensor for tensor in model.graph.initializer}
    producers = {output: node for node in model.graph.node for output in node.output}
    for node in model.graph.node:
        if node.op_type == "Conv":
            dequantize = producers[node.input[1]]
            assert dequantize.op_type == "DequantizeLinear"
            axis = next(attribute.i for attribute in dequantize.attribute if attribute.name == "axis")
            weight, scale = (numpy_helper.to_array(values[name]) for name in dequantize.input[:2])
            yield weight, scale, axis


def test_small_head_and_map_stay_fp32(pair: Pair) -> None:
    model = onnx.load(pair.int8.path)
    region = float_region(model)
    operations = {node.op_type for node in region}
    assert operations >= FLOAT_HEAD
    assert not operations & {"QuantizeLinear", "Conv", "QLinearConv"}
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in region:
        if node.op_type in {"Gemm", "MatMul", "Gather"}:
            stored = [weights[name].data_type for name in node.input if name in weights]
            assert set(stored) <= {onnx.TensorProto.FLOAT, onnx.TensorProto.INT64}


def test_body_is_quantized_per_channel(pair: Pair) -> None:
    found = list(kernels(onnx.load(pair.int8.path)))
    assert [weight.shape[0] for weight, _, _ in found] == [FILTERS * OUTPUTS, CHANNELS]
    for weight, scale, axis in found:
        assert weight.dtype == np.int8
        assert scale.shape == (weight.shape[0],) and axis == 0
        assert len(set(scale.tolist())) > 1, "all channels have the same scale"


def test_convolutions_read_uint8_and_the_first_one_reads_the_image(pair: Pair) -> None:
    model = onnx.load(pair.int8.path)
    producers = {output: node for node in model.graph.node for output in node.output}
    zeros = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    for node in convolutions:
        dequantize = producers[node.input[0]]
        assert dequantize.op_type == "DequantizeLinear"
        assert zeros[dequantize.input[2]] == onnx.TensorProto.UINT8
    tensor, moved = producers[convolutions[0].input[0]].input[0], []
    while tensor != "image":
        node = producers[tensor]
        moved.append(node.op_type)
        tensor = next(name for name in node.input if name == "image" or (name in producers and name[0] != "_"))
        if node.op_type == "Concat":
            tensor = next(name for name in node.input if name.startswith(("framed", "grouped", "image")))
    assert set(moved) <= {"Transpose", "Concat", "Reshape"}, "the image is not only rearranged"


def test_logits_and_maps_stay_close_to_fp32(pair: Pair, pictures: Draw) -> None:
    images = pictures(64, 200)
    exact, coarse = pair.fp32.model.predict(images, 3), pair.int8.predict(images, 3)
    assert agreement(exact.logits, coarse.logits) >= 0.9
    pearson = map_pearson(exact.saliency_map, coarse.saliency_map)
    # The median instead of the mean: a map may flip if slopes of a random network change sign.
    assert np.median(pearson) >= 0.99 and np.percentile(pearson, 10) >= 0.9
    # Equal values would mean that nothing was quantized.
    assert np.abs(exact.saliency_map - coarse.saliency_map).max() > 1e-4 * np.abs(exact.saliency_map).max()


def test_metadata_and_the_default_class_are_preserved(pair: Pair, pictures: Draw) -> None:
    fp32, int8 = pair.fp32, pair.int8
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


def test_batch_matches_single_images(pair: Pair, pictures: Draw) -> None:
    images = pictures(5, 400)
    together = pair.int8.predict(images)
    for index, image in enumerate(images):
        alone = pair.int8.predict(image[None])
        np.testing.assert_allclose(alone.logits[0], together.logits[index], rtol=1e-4, atol=1e-5)


def test_file_is_valid_and_contains_no_local_paths(pair: Pair, own_paths: tuple[bytes, ...]) -> None:
    path = pair.int8.path
    onnx.checker.check_model(onnx.load(path), full_check=True)
    content = path.read_bytes()
    for place in own_paths:
        assert place not in content
    model = onnx.load_from_string(content)
    assert model.producer_name == "kdedge"
    assert all(entry.key.startswith("kdedge.") for entry in model.metadata_props)


def test_note_records_the_settings(full_range: Quantized, calibration: np.ndarray) -> None:
    note = dict(full_range.note)
    losses, held_out, latency = note.pop("calibration_loss"), note.pop("held_out"), note.pop("latency_ms")
    assert note.pop("calibration") == min(METHODS, key=losses.__getitem__), "another method has a lower loss"
    assert tuple(losses) == METHODS
    assert note == {
        "format": "qdq",
        "activations": "uint8",
        "weights": "int8",
        "per_channel": True,
        "calibration_sha256": hashlib.sha256(calibration.tobytes()).hexdigest(),
        "calibration_samples": len(calibration),
        "float_layers": [],
        "goal": {"min_map_correlation": None, "max_drop": None},
        "reduce_range": False,
    }
    assert held_out["samples"] == 16 and 0.5 < held_out["agreement"] <= 1 and held_out["accuracy"] is None
    assert min(latency["fp32"], latency["int8"]) > 0 and latency["threads"] == 1 and latency["machine"]


def test_reduced_range_limits_weights_to_7_bits(pair: Pair, full_range: Quantized) -> None:
    for weight, _, _ in kernels(onnx.load(pair.int8.path)):
        assert np.abs(weight.astype(int)).max() == 64
    for weight, _, _ in kernels(full_range.model):
        assert np.abs(weight.astype(int)).max() == 127


def test_signed_activations(export: Callable[[str], Export], calibration: np.ndarray, pictures: Draw, tmp_path) -> None:
    for name in ("linear", "hard swish"):
        fp32 = export(name)
        quantized = quantize(fp32.graph, calibration, pictures(16, 150), QuantizationRecipe(False, activations="int8"))
        zeros = {tensor.name: tensor.data_type for tensor in quantized.model.graph.initializer}
        kinds = {zeros[node.input[2]] for node in quantized.model.graph.node if node.op_type == "QuantizeLinear"}
        assert kinds == {onnx.TensorProto.INT8}
        images = pictures(64, 200)
        exact, coarse = fp32.model.predict(images, 3), saved(quantized, fp32, tmp_path).predict(images, 3)
        assert np.median(map_pearson(exact.saliency_map, coarse.saliency_map)) >= 0.99


def test_progress_counts_both_calibration_passes(pair: Pair, calibration: np.ndarray) -> None:
    ends = {what: (done, total) for what, done, total in pair.steps}
    assert ends == {
        "calibrating": (2 * len(calibration), 2 * len(calibration)),
        "choosing ranges": (len(METHODS), len(METHODS)),
    }


def test_graph_without_map_is_quantized_up_to_its_last_layer(
    export: Callable[[str], Export], calibration: np.ndarray, pictures: Draw, tmp_path
) -> None:
    plain = export("plain")
    quantized = quantize(plain.graph, calibration, pictures(16, 150), QuantizationRecipe())
    int8 = saved(quantized, plain, tmp_path)
    assert len(list(kernels(quantized.model))) == 2
    assert "Gemm" in {node.op_type for node in float_region(quantized.model)}
    assert quantized.tradeoff.chosen.fidelity.map_pearson is None
    images = pictures(64, 200)
    assert agreement(plain.model.predict(images).logits, int8.predict(images).logits) >= 0.9


def test_calibration_images_are_required(export: Callable[[str], Export], calibration: np.ndarray) -> None:
    with pytest.raises(UsageError, match=r"needs calibration samples, but there are none.*--data DIR"):
        quantize(export("linear").graph, calibration[:0], calibration, QuantizationRecipe())
