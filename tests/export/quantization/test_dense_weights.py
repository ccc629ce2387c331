"""Test int8 weights of large dense layers, which are stored once for the logits, the map and the backward pass."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from small_nets import CHANNELS, POSITIONS, SPEC, HeadNet, randomised
from torch import Tensor, nn
from torchvision.ops import SqueezeExcitation

from kdedge_export.inspection.class_weights import class_weights
from kdedge_export.metrics.agreement import agreement
from kdedge_export.metrics.map_similarity import map_pearson, scale_error
from kdedge_export.quantization import QuantizationRecipe, Quantized, quantize
from kdedge_export.quantization.dense_weights import dense_layers
from kdedge_export.quantization.mixed_precision import FidelityGoal
from kdedge_export.quantization.prepare import prepare_graph
from kdedge_export.quantization.quantizable_layers import layers_of
from kdedge_export.torch_export import ClassifierOnly, ExportableModel, export_graph, save_model, wrap_for_export
from kdedge_runtime import Metadata, Model

Draw = Callable[[int, int], np.ndarray]
CLASSES, HIDDEN, FEATURES = 128, 512, 160
LAST, FIRST = "head.2", "head.0"
DEAD, BIASED = 5, 6
"""Classes with zero weights, and with a bias that is large relative to the weights."""


@dataclass(frozen=True)
class Pair:
    """Graph with two dense layers of 2¹⁶ weights, and its int8 version."""

    fp32: Model
    int8: Model
    quantized: Quantized


def network(*, bias: bool = True) -> nn.Module:
    torch.manual_seed(1)
    net = HeadNet(nn.Linear(CHANNELS, HIDDEN), nn.Hardswish(), nn.Linear(HIDDEN, CLASSES, bias=bias))
    net.features.append(nn.Conv2d(CHANNELS, FEATURES, 1))
    net.head[0] = nn.Linear(FEATURES, HIDDEN)
    nn.init.normal_(net.head[0].weight, std=0.5)
    with torch.no_grad():
        net.head[2].weight[DEAD] = 0
        net.head[2].weight[BIASED] *= 1e-9
        if bias:
            net.head[2].bias[BIASED] = -3
    return randomised(net)


class Flat(nn.Module):
    """Network with separate weights for each position, as in VGG, whose map needs a backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.features = network().features
        self.head = nn.Sequential(nn.Linear(FEATURES * POSITIONS**2, 64), nn.ReLU(), nn.Linear(64, HIDDEN), nn.ReLU())
        self.head.append(nn.Linear(HIDDEN, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).flatten(1))


def saved(model: onnx.ModelProto, module: ExportableModel | ClassifierOnly, path) -> Model:
    labels = tuple(str(index) for index in range(CLASSES))
    save_model(model, Metadata(labels, SPEC, module.outputs, lineage={}), path)
    return Model.load(path, threads=1, exact_sums=True)


def pair_of(module: ExportableModel | ClassifierOnly, recipe: QuantizationRecipe, pictures: Draw, folder) -> Pair:
    graph = export_graph(module)
    quantized = quantize(graph, pictures(48, 1), pictures(32, 2), recipe)
    return Pair(
        saved(graph.model, module, folder / "fp32.onnx"),
        saved(quantized.model, module, folder / "int8.onnx"),
        quantized,
    )


@pytest.fixture(
    scope="module",
    params=[QuantizationRecipe(False), QuantizationRecipe(True), QuantizationRecipe(False, activations="int8")],
    ids=["8 bits", "7 bits", "signed"],
)
def pair(request: pytest.FixtureRequest, pictures: Draw, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return pair_of(wrap_for_export(network(), SPEC), request.param, pictures, tmp_path_factory.mktemp("dense"))


def stored(model: onnx.ModelProto) -> list[np.ndarray]:
    """Return all constants as large as a layer's weight."""
    values = [numpy_helper.to_array(tensor) for tensor in model.graph.initializer]
    return [value for value in values if value.size >= HIDDEN * CLASSES]


def test_each_layer_is_stored_once_in_int8(pair: Pair) -> None:
    found = stored(pair.quantized.model)
    assert sorted(value.shape for value in found) == [(CLASSES, HIDDEN), (HIDDEN, FEATURES)]
    assert {value.dtype for value in found} == {np.dtype(np.int8)}
    bits = 64 if pair.quantized.note["reduce_range"] else 127
    assert {int(np.abs(value.astype(int)).max()) for value in found} == {bits}


def test_logits_and_maps_stay_close_to_fp32(pair: Pair, pictures: Draw) -> None:
    images = pictures(64, 3)
    exact, coarse = pair.fp32.predict(images, 3), pair.int8.predict(images, 3)
    assert agreement(exact.logits, coarse.logits) >= 0.85
    scores = map_pearson(exact.saliency_map, coarse.saliency_map)
    assert np.median(scores) >= 0.98 and np.percentile(scores, 10) >= 0.9


def test_logits_do_not_tie(pair: Pair, pictures: Draw) -> None:
    for logits in pair.int8.predict(pictures(64, 3)).logits:
        others = np.delete(logits, DEAD)
        assert len(np.unique(others)) > 0.95 * len(others)


def test_zero_rows_and_large_biases_are_preserved(pair: Pair, pictures: Draw) -> None:
    images = pictures(8, 4)
    exact, coarse = pair.fp32.predict(images, DEAD), pair.int8.predict(images, DEAD)
    np.testing.assert_allclose(coarse.logits[:, DEAD], exact.logits[:, DEAD], atol=1e-4)
    np.testing.assert_allclose(coarse.logits[:, BIASED], -3, atol=1e-4)
    np.testing.assert_array_equal(coarse.saliency_map, 0)


def test_batch_matches_single_images(pair: Pair, pictures: Draw) -> None:
    images = pictures(6, 5)
    images[3] //= 8  # an image of another range must not affect the others
    together = pair.int8.predict(images, 7)
    for index, image in enumerate(images):
        alone = pair.int8.predict(image[None], 7)
        np.testing.assert_allclose(alone.logits[0], together.logits[index], rtol=1e-4, atol=1e-5)
        largest = np.abs(together.saliency_map[index]).max()
        np.testing.assert_allclose(alone.saliency_map[0], together.saliency_map[index], atol=1e-5 * largest)


def test_search_may_keep_dense_layers_in_fp32(pictures: Draw) -> None:
    graph = export_graph(wrap_for_export(network(), SPEC))
    names = [layer.name for layer in layers_of(prepare_graph(graph, bytes_in=True))]
    assert names[-2:] == [FIRST, LAST]
    quantized = quantize(
        graph,
        pictures(48, 1),
        pictures(32, 2),
        QuantizationRecipe(False),
        goal=FidelityGoal(min_map_correlation=0.99999),
    )
    assert {FIRST, LAST} & set(quantized.note["float_layers"])
    assert np.dtype(np.float32) in {value.dtype for value in stored(quantized.model)}


def test_hidden_layers_are_stored_once_with_an_autograd_head(pictures: Draw, tmp_path) -> None:
    torch.manual_seed(2)
    pair = pair_of(wrap_for_export(randomised(Flat()), SPEC), QuantizationRecipe(False), pictures, tmp_path)
    found = [value for value in stored(pair.quantized.model) if value.ndim == 2]
    assert [(value.shape, value.dtype) for value in found if value.size > 1 << 17] == [
        ((64, FEATURES * POSITIONS**2), np.dtype(np.int8))
    ]
    assert {"head.0", "head.2", "head.4"} <= set(pair.quantized.int8_layers)
    images = pictures(32, 3)
    exact, coarse = pair.fp32.predict(images, 3), pair.int8.predict(images, 3)
    assert agreement(exact.logits, coarse.logits) >= 0.85
    assert np.median(map_pearson(exact.saliency_map, coarse.saliency_map)) >= 0.98


def test_layer_without_bias_and_graph_without_map(pictures: Draw, tmp_path) -> None:
    pair = pair_of(ClassifierOnly(network(bias=False), SPEC), QuantizationRecipe(False), pictures, tmp_path)
    assert (CLASSES, HIDDEN) in {value.shape for value in stored(pair.quantized.model) if value.dtype == np.int8}
    images = pictures(64, 3)
    assert agreement(pair.fp32.predict(images).logits, pair.int8.predict(images).logits) >= 0.85


def test_small_layers_stay_fp32() -> None:
    rewritten = prepare_graph(
        export_graph(wrap_for_export(randomised(HeadNet(nn.Linear(CHANNELS, 5000))), SPEC)), bytes_in=True
    )
    assert dense_layers(rewritten.model.graph, rewritten.head_nodes) == []


def test_class_weights_are_read_from_int8(pair: Pair) -> None:
    exact, coarse = (class_weights(onnx.load(model.path), CLASSES) for model in (pair.fp32, pair.int8))
    assert exact is not None and coarse is not None
    row = np.abs(exact.weights).max(axis=1, keepdims=True)
    kept = np.delete(np.arange(CLASSES), [DEAD, BIASED])
    np.testing.assert_allclose(
        (coarse.weights / np.where(row, row, 1))[kept], (exact.weights / np.where(row, row, 1))[kept], atol=0.01
    )


def test_large_squeeze_and_excitation_layers_are_int8(pictures: Draw, tmp_path) -> None:
    net = network()
    net.features.append(SqueezeExcitation(FEATURES, 416))
    pair = pair_of(wrap_for_export(randomised(net), SPEC), QuantizationRecipe(False), pictures, tmp_path)
    assert {value.dtype for value in stored(pair.quantized.model)} == {np.dtype(np.int8)}
    assert {"features.7.fc1", "features.7.fc2"} <= set(pair.quantized.int8_layers)
    images = pictures(32, 3)
    exact, coarse = pair.fp32.predict(images, 3), pair.int8.predict(images, 3)
    assert agreement(exact.logits, coarse.logits) >= 0.85
    assert np.median(map_pearson(exact.saliency_map, coarse.saliency_map)) >= 0.98


def named(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def test_scales_are_per_output(pair: Pair) -> None:
    """Each row's largest weight maps to the largest int8 value, and the error of each weight is at most half a step."""
    largest = 64 if pair.quantized.note["reduce_range"] else 127
    exact, coarse = named(onnx.load(pair.fp32.path)), named(pair.quantized.model)
    layers = [name.removesuffix("_quantized") for name, value in coarse.items() if value.size >= HIDDEN * CLASSES]
    assert len(layers) == 2
    for layer in layers:
        weight, steps, scale = exact[layer], coarse[f"{layer}_quantized"].astype(float), coarse[f"{layer}_scale"]
        assert scale.shape == (len(weight),)
        rows = np.setdiff1d(np.arange(len(weight)), [DEAD, BIASED] if len(weight) == CLASSES else [])
        assert (np.abs(steps[rows]).max(axis=1) == largest).all()
        assert (np.abs(steps * scale[:, None] - weight)[rows] <= 0.501 * scale[rows, None]).all()


def test_input_zero_point_covers_the_range(pair: Pair) -> None:
    """A zero point that is off by one would clip one end by a step and waste a value at the other."""
    constants, makers = named(pair.quantized.model), {node.output[0]: node for node in pair.quantized.model.graph.node}
    found = 0
    for node in pair.quantized.model.graph.node:
        if node.op_type != "Gemm" or makers[node.input[0]].op_type != "DequantizeLinear":
            continue
        quantize = makers[makers[node.input[0]].input[0]]
        step, zero = (constants[name] for name in quantize.input[1:])
        limits, (low, high) = np.iinfo(zero.dtype), pair.quantized.ranges[quantize.input[0]]
        ends = [(int(limit) - int(zero)) * float(step) for limit in (limits.min, limits.max)]
        assert ends == pytest.approx([min(low, 0), max(high, 0)], abs=0.51 * float(step))
        found += 1
    assert found == 2


def test_map_uses_the_scale_of_its_class(pictures: Draw, tmp_path) -> None:
    """Every other class has weights four times as large, so that another row's scale changes the map's magnitude."""
    net = network()
    with torch.no_grad():
        net.head[2].weight[::2] *= 4
    pair = pair_of(wrap_for_export(net, SPEC), QuantizationRecipe(False), pictures, tmp_path)
    images = pictures(8, 3)
    for picked in (0, 1, 2, 3, CLASSES - 1):
        exact, coarse = pair.fp32.predict(images, picked), pair.int8.predict(images, picked)
        assert scale_error(exact.saliency_map, coarse.saliency_map).mean() < 0.2
