"""Test the search for the fewest layers in fp32 that preserve predictions and maps on held-out images."""

import itertools
from collections.abc import Callable, Collection

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from small_nets import CHANNELS, CLASSES, SPEC, Export, randomised
from torch import nn

from kdedge_export.metrics.confidence import unseen_share
from kdedge_export.quantization import FidelityGoal, QuantizationRecipe, Quantized, quantize
from kdedge_export.quantization.fidelity import Fidelity, FidelityEvaluator
from kdedge_export.quantization.mixed_precision import search
from kdedge_export.quantization.quantizable_layers import QuantizableLayer
from kdedge_export.torch_export import export_graph, wrap_for_export
from kdedge_export.torch_export.exporter import ExportedGraph
from kdedge_runtime.errors import UsageError

Draw = Callable[[int, int], np.ndarray]
OUTLIER = 300
SPREAD = 10
"""Range of the channels' scales in octaves."""


class Chain(nn.Module):
    """Five convolutions. One channel of the second is so large that a common scale leaves no precision for the others.

    The third one compensates for it, so that the function equals that of the network without the outlier.
    """

    def __init__(self, *, outlier: bool) -> None:
        super().__init__()
        sizes = [3, 8, 12, 12, 12, CHANNELS]
        layers: list[nn.Module] = []
        for number, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
            stride = 2 if number in (0, 3) else 1
            layers += [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
        self.body = randomised(nn.Sequential(*layers))
        if outlier:
            norm, following = self.body[4], self.body[6]
            with torch.no_grad():
                norm.weight[3] *= OUTLIER
                norm.bias[3] *= OUTLIER
                following.weight[:, 3] /= OUTLIER
        self.head = nn.Linear(CHANNELS, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x).mean((2, 3)))


class Inverted(nn.Module):
    """MobileNetV3's inverted residual block with squeeze-and-excitation and HardSwish."""

    def __init__(self, channels: int, wide: int) -> None:
        super().__init__()
        self.expand = nn.Sequential(nn.Conv2d(channels, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.Hardswish())
        self.around = nn.Sequential(
            nn.Conv2d(wide, wide, 3, padding=1, groups=wide, bias=False), nn.BatchNorm2d(wide), nn.Hardswish()
        )
        self.squeeze, self.excite = nn.Conv2d(wide, 8, 1), nn.Conv2d(8, wide, 1)
        self.narrow = nn.Sequential(nn.Conv2d(wide, channels, 1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.around(self.expand(x))
        gate = nn.functional.hardsigmoid(self.excite(self.squeeze(y.mean((2, 3), keepdim=True)).relu()))
        return self.narrow(y * gate)


class Mobile(nn.Module):
    """Three inverted residual blocks; in the second one the depthwise layer's channels have ranges from 1 to 1024.

    HardSwish separates these channels from the layer that compensates for them. Unlike with a ReLU, no scale can
    be moved across it, so that no network with equalized channels computes the same function.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 12, 3, 2, 1, bias=False), nn.BatchNorm2d(12), nn.Hardswish())
        self.blocks = nn.Sequential(*(Inverted(12, 24) for _ in range(3)))
        self.last = nn.Sequential(
            nn.Conv2d(12, CHANNELS, 3, 2, 1, bias=False), nn.BatchNorm2d(CHANNELS), nn.Hardswish()
        )
        self.head = nn.Linear(CHANNELS, CLASSES)
        for module in self.modules():  # activations as large as trained ones', so that gates open and close
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None
        self.train()(torch.randn(16, 3, SPEC.height, SPEC.width))
        sizes = torch.exp2(torch.linspace(0, SPREAD, 24))
        block = self.blocks[1]
        with torch.no_grad():
            block.around[1].weight *= sizes
            block.around[1].bias *= sizes
            block.narrow[0].weight /= sizes[:, None, None]
            block.squeeze.weight /= sizes[:, None, None]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.last(self.blocks(self.stem(x))).mean((2, 3)))


def graph_of(*, outlier: bool) -> ExportedGraph:
    torch.manual_seed(0)
    return export_graph(wrap_for_export(Chain(outlier=outlier).eval(), SPEC))


@pytest.fixture(scope="module")
def broken() -> ExportedGraph:
    return graph_of(outlier=True)


@pytest.fixture(scope="module")
def rescued(broken: ExportedGraph, pictures: Draw) -> Quantized:
    goal = FidelityGoal(min_map_correlation=0.98, max_drop=4)
    return quantize(broken, pictures(48, 1), pictures(48, 2), QuantizationRecipe(False), goal=goal)


def test_only_the_outlier_layers_stay_fp32(rescued: Quantized, broken, pictures: Draw) -> None:
    tradeoff = rescued.tradeoff
    plain, chosen = tradeoff.points[0], tradeoff.chosen
    assert plain.float_layers == () and plain.fidelity.map_pearson < 0.9, "int8 without fp32 layers is not degraded"
    assert tradeoff.met and chosen.fidelity.map_pearson >= 0.98 and chosen.fidelity.drop_points <= 4
    # Only the tensor between them must not be quantized, which requires both layers in fp32.
    assert set(chosen.float_layers) == {"body.3", "body.6"}
    assert rescued.note["float_layers"] == list(chosen.float_layers)
    held = FidelityEvaluator(broken.model, pictures(64, 3)).evaluate(rescued.model)
    assert held.map_pearson > 0.97 and held.agreement >= 0.9, (
        "fidelity on other images is lower than on the held-out images"
    )


def test_few_fp32_layers_restore_a_mobilenet_with_unequal_channels(pictures: Draw) -> None:
    torch.manual_seed(0)
    graph = export_graph(wrap_for_export(Mobile().eval(), SPEC))
    # Between 0.888 with one layer in fp32 and 0.995 with two, so that rounding has no influence.
    goal = FidelityGoal(min_map_correlation=0.95)
    quantized = quantize(graph, pictures(32, 1), pictures(48, 2), QuantizationRecipe(False), goal=goal)
    plain, chosen = quantized.tradeoff.points[0].fidelity, quantized.tradeoff.chosen
    assert plain.map_pearson < 0.9 and plain.agreement < 0.85, "int8 without fp32 layers is not degraded"
    # The layer that produces the unequal channels, and the layer that reads them.
    assert quantized.tradeoff.met and set(chosen.float_layers) == {"blocks.1.around.0", "blocks.1.narrow.0"}
    assert quantized.tradeoff.layers == 11
    held = FidelityEvaluator(graph.model, pictures(64, 3)).evaluate(quantized.model)
    assert held.map_pearson > 0.97 and held.agreement >= 0.9, (
        "fidelity on other images is lower than on the held-out images"
    )


def test_regular_network_needs_no_fp32_layers(pictures: Draw) -> None:
    goal = FidelityGoal(min_map_correlation=0.98, max_drop=4)
    tradeoff = quantize(
        graph_of(outlier=False), pictures(48, 1), pictures(48, 2), QuantizationRecipe(False), goal=goal
    ).tradeoff
    assert tradeoff.met and tradeoff.chosen.float_layers == () and len(tradeoff.points) == 1


def test_size_grows_with_fp32_layers(rescued: Quantized, broken: ExportedGraph) -> None:
    tradeoff = rescued.tradeoff
    # In so small a network, nodes that convert to int8 and back outweigh the weights they save.
    assert tradeoff.points[0].bytes < min(tradeoff.chosen.bytes, tradeoff.fp32.bytes)
    assert tradeoff.chosen.bytes == rescued.model.ByteSize() and tradeoff.fp32.bytes == broken.model.ByteSize()
    assert tradeoff.layers == 5 and tradeoff.samples == 48
    assert all(point.latency_ms > 0 and point.fp32_latency_ms > 0 for point in tradeoff.points)


def test_efficient_points_are_not_dominated(rescued: Quantized) -> None:
    front = rescued.tradeoff.efficient
    for point in front:
        for other in rescued.tradeoff.points:
            assert not (other.speedup > point.speedup and other.fidelity.loss < point.fidelity.loss)


def test_unreachable_goal_is_reported(broken: ExportedGraph, pictures: Draw) -> None:
    steps = []
    tradeoff = quantize(
        broken,
        pictures(24, 1),
        pictures(24, 2),
        QuantizationRecipe(False),
        goal=FidelityGoal(min_map_correlation=0.9999999),
        progress=lambda *step: steps.append(step),
    ).tradeoff
    assert not tradeoff.met and 0 < len(tradeoff.chosen.float_layers) < tradeoff.layers
    assert tradeoff.chosen.fidelity.map_pearson == max(point.fidelity.map_pearson for point in tradeoff.points)
    assert {("measuring layers", 5, 5), ("keeping layers in fp32", 4, 5)} <= set(steps)


def test_keep_heatmaps_without_maps_is_rejected(export: Callable[[str], Export], pictures: Draw) -> None:
    with pytest.raises(UsageError, match="no map to compare"):
        quantize(
            export("plain").graph,
            pictures(4, 1),
            pictures(4, 2),
            QuantizationRecipe(False),
            goal=FidelityGoal(min_map_correlation=0.9),
        )


def test_drop_is_of_accuracy_with_labels(broken: ExportedGraph, pictures: Draw) -> None:
    images = pictures(32, 4)
    free = FidelityEvaluator(broken.model, images)
    assert free.itself.accuracy is None and free.itself.drop_points == 0 and free.itself.map_pearson == 1
    predictions = free._logits.argmax(axis=1)
    sound = graph_of(outlier=False).model
    right = FidelityEvaluator(broken.model, images, predictions)
    assert right.itself.accuracy == 1.0
    found = right.evaluate(sound)  # the same function
    assert found.agreement >= 0.95 and found.drop_points == pytest.approx(100 * (1 - found.agreement))
    assert free.itself.most_drop_points == pytest.approx(100 * unseen_share(32), rel=0.02), (
        "drop that 32 images cannot exclude"
    )
    assert found.drop_points < found.most_drop_points < 100
    wrong = FidelityEvaluator(broken.model, images, (predictions + 1) % CLASSES)
    assert wrong.itself.accuracy == 0.0 and wrong.evaluate(sound).drop_points <= 0, "accuracy cannot fall below 0"


def test_subset_of_images_covers_all_classes(broken: ExportedGraph, pictures: Draw) -> None:
    """The images are sorted by class."""
    images = pictures(32, 4)
    predictions = FidelityEvaluator(broken.model, images)._logits.argmax(axis=1)
    is_last = np.arange(32) // 8 == 3
    evaluator = FidelityEvaluator(broken.model, images, np.where(is_last, predictions, (predictions + 1) % CLASSES))
    assert evaluator.evaluate(broken.model, 8).accuracy == 0.25, "the last of four classes is missing"
    assert evaluator.evaluate(broken.model, 99).accuracy == evaluator.itself.accuracy == 0.25


def fidelity(map_pearson: float | None, drop_points: float) -> Fidelity:
    return Fidelity(1 - drop_points / 100, None, drop_points, drop_points, 0.0, map_pearson)


@pytest.mark.parametrize(
    ("goal", "found", "kept"),
    [
        (FidelityGoal(0.98, 0.5), fidelity(0.98, 0.5), True),
        (FidelityGoal(0.98, 0.5), fidelity(0.979, 0.0), False),
        (FidelityGoal(0.98, 0.5), fidelity(1.0, 0.6), False),
        (FidelityGoal(0.98), fidelity(0.99, 50.0), True),
        (FidelityGoal(None, 0.0), fidelity(0.1, 0.0), True),
        (FidelityGoal(None, 0.0), fidelity(1.0, 0.1), False),
        (FidelityGoal(0.98), fidelity(None, 0.0), False),
        (FidelityGoal(0.98), fidelity(np.nan, 0.0), False),
        (FidelityGoal(None, 0.5), fidelity(None, 0.0), True),
        (FidelityGoal(None, np.nan), fidelity(1.0, 90.0), False),
        (FidelityGoal(), fidelity(0.0, 100.0), True),
    ],
)
def test_goal_kept(goal: FidelityGoal, found: Fidelity, kept: bool) -> None:
    assert goal.kept(found) is kept


@pytest.mark.parametrize("activations", ["uint8", "int8"])
def test_hard_sigmoid_is_one_at_the_quantized_value_of_one(activations: str, pictures: Draw) -> None:
    torch.manual_seed(0)
    graph = export_graph(wrap_for_export(Mobile().eval(), SPEC))
    model = quantize(graph, pictures(8, 1), pictures(8, 2), QuantizationRecipe(False, activations=activations)).model
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    gates = [name.removesuffix("_open") for name in constants if name.endswith("_open")]
    assert len(gates) >= 3
    for gate in gates:
        opened, closed, step = (constants[f"{gate}_{name}"] for name in ("open", "closed", "step"))
        assert (int(opened) - int(closed)) * float(step) == pytest.approx(1, abs=0.501 * float(step))


class Noted(FidelityEvaluator):
    """`FidelityEvaluator` with fixed results by the fp32 layers, which the graph lists in its description."""

    def evaluate(self, model: onnx.ModelProto, images: int | None = None) -> Fidelity:
        floats = set(model.doc_string.split())
        if images is not None:  # a single quantized layer: the first has the largest loss, the last the smallest
            (alone,) = set("abcd") - floats
            return fidelity({"a": 0.5, "b": 0.6, "c": 0.7, "d": 0.9}[alone], 0.0)
        return fidelity(0.99 if {"b", "c"} <= floats else 0.9, 0.0)


def test_unneeded_fp32_layer_returns_to_int8(broken: ExportedGraph, pictures: Draw) -> None:
    """The layer with the largest loss is tried first, but is not needed given the other two."""

    def build(floats: Collection[str]) -> onnx.ModelProto:
        model = onnx.ModelProto()
        model.CopyFrom(broken.model)
        model.doc_string = " ".join(floats)
        return model

    layers = tuple(QuantizableLayer(name, frozenset({name})) for name in "abcd")
    evaluator = Noted(broken.model, pictures(2, 1))
    found = search(
        broken.model, build, layers, evaluator, pictures(1, 1), FidelityGoal(min_map_correlation=0.98), lambda *_: None
    )
    assert found.met and found.points[-3].float_layers == ("a", "b", "c")
    assert set(found.chosen.float_layers) == {"b", "c"}


def test_lost_maps_score_zero(broken: ExportedGraph, pictures: Draw) -> None:
    """Maps of dark images are zero, so that only bright images keep theirs."""
    images = pictures(24, 4)
    shade = images.mean(axis=(1, 2, 3))
    model = onnx.ModelProto()
    model.CopyFrom(broken.model)
    for node in model.graph.node:
        node.output[:] = ["whole_map" if name == "saliency_map" else name for name in node.output]
        node.input[:] = ["whole_map" if name == "saliency_map" else name for name in node.input]
    constants = {"limit": np.float32(np.median(shade)), "places": np.array([1, 2, 3]), "axes": np.array([1, 2])}
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items())
    make = helper.make_node
    model.graph.node.extend(
        [
            make("Cast", ["image"], ["as_float"], to=onnx.TensorProto.FLOAT),
            make("ReduceMean", ["as_float", "places"], ["shade"], keepdims=0),
            make("Greater", ["shade", "limit"], ["is_bright"]),
            make("Cast", ["is_bright"], ["bright"], to=onnx.TensorProto.FLOAT),
            make("Unsqueeze", ["bright", "axes"], ["bright_maps"]),
            make("Mul", ["whole_map", "bright_maps"], ["saliency_map"]),
        ]
    )
    found = FidelityEvaluator(broken.model, images).evaluate(model)
    assert found.agreement == 1
    assert found.map_pearson == pytest.approx((shade > np.median(shade)).mean(), abs=1e-3)
