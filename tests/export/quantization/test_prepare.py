"""Test that rewriting for integer kernels preserves the function."""

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from small_nets import CLASSES, NETS, SIDE, SPEC, randomised
from torch import nn

from kdedge_export.onnx_graph.session import make_feed, open_session
from kdedge_export.quantization import QuantizationRecipe, quantize
from kdedge_export.quantization.prepare import prepare_graph
from kdedge_export.quantization.qdq import quantizable_nodes
from kdedge_export.quantization.quantizable_layers import layers_of
from kdedge_export.torch_export import ClassifierOnly, export_graph, wrap_for_export
from kdedge_runtime.modalities.image import ImageInput

EVEN = ImageInput(SIDE, SIDE, mean=(102 / 255, 80 / 255, 153 / 255), std=(0.25, 0.2, 0.3))
"""Means that are whole pixel values, so that zero padding is exact."""


def predictions(model: onnx.ModelProto, images: np.ndarray) -> list[np.ndarray]:
    session = open_session(model, exact_sums=True)
    return session.run(None, make_feed(session, images))


def first_convolution(settings: dict, spec: ImageInput) -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 6, **settings), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten()]
    return randomised(nn.Sequential(*layers, nn.Linear(96, CLASSES)))


# "every activation" differs only in its head, and its derivative has steps.
@pytest.mark.parametrize("name", sorted(NETS.keys() - {"every activation"}))
def test_bytes_in_graph_computes_the_same(name: str, pictures) -> None:
    torch.manual_seed(0)
    graph = export_graph(wrap_for_export(randomised(NETS[name]()), EVEN))
    rewritten = prepare_graph(graph, bytes_in=True)
    assert rewritten.pixel_zero == round((102 + 80 + 153) / 3)
    assert "HardSwish" not in {node.op_type for node in rewritten.model.graph}
    images = pictures(4, 7)
    for exact, found in zip(predictions(graph.model, images), predictions(rewritten.proto, images), strict=True):
        np.testing.assert_allclose(found, exact, atol=2e-5 * float(np.abs(exact).max()) + 1e-6)


@pytest.mark.parametrize(
    "settings",
    [
        {"kernel_size": 3, "stride": 2, "padding": 1},
        {"kernel_size": 7, "stride": 2, "padding": 3, "bias": False},
        {"kernel_size": 4, "stride": 4},
        {"kernel_size": 5, "stride": 4, "padding": 2},
        {"kernel_size": 2, "stride": 2},
        {"kernel_size": 3, "stride": 1, "padding": 1},
        {"kernel_size": 3, "stride": 2},
        {"kernel_size": 3, "stride": 3, "padding": 2},
        {"kernel_size": 3, "stride": 2, "padding": 2, "dilation": 2},
        {"kernel_size": (3, 5), "stride": (1, 2), "padding": (2, 1)},
    ],
    ids=str,
)
def test_first_convolution_reads_bytes(settings: dict, pictures) -> None:
    graph = export_graph(ClassifierOnly(first_convolution(settings, EVEN), EVEN))
    rewritten = prepare_graph(graph, bytes_in=True)
    assert rewritten.pixel_zero is not None
    images = pictures(3, 8)
    (exact,), (found,) = predictions(graph.model, images), predictions(rewritten.proto, images)
    np.testing.assert_allclose(found, exact, atol=2e-5 * float(np.abs(exact).max()))


@pytest.mark.parametrize(
    ("settings", "height", "width", "spec"),
    [
        ({"kernel_size": 3, "stride": 2, "padding": 1}, 33, 32, EVEN),
        ({"kernel_size": (5, 3), "stride": (4, 2), "padding": (0, 1)}, 45, 64, SPEC),
        ({"kernel_size": (2, 4), "stride": (1, 4), "padding": (3, 0)}, 32, 36, EVEN),
    ],
    ids=str,
)
def test_first_convolution_reads_bytes_at_any_size(settings: dict, height: int, width: int, spec: ImageInput) -> None:
    """Columns are grouped if their number is divisible, independently of the rows."""
    spec = replace(spec, height=height, width=width)
    graph = export_graph(ClassifierOnly(first_convolution(settings, spec).eval(), spec))
    rewritten = prepare_graph(graph, bytes_in=True)
    assert any(node.outputs[0].name == "ungrouped" for node in rewritten.model.graph)
    images = np.random.default_rng(0).integers(0, 256, (3, height, width, 3), dtype=np.uint8)
    (exact,), (found,) = predictions(graph.model, images), predictions(rewritten.proto, images)
    atol = 1e-5 if spec.mean == EVEN.mean else 0.02  # padding is rounded to whole pixel values
    np.testing.assert_allclose(found, exact, atol=atol * float(np.abs(exact).max()))


def test_padding_of_fractional_mean_is_off_by_less_than_half_a_pixel_value(pictures) -> None:
    spec = ImageInput(SIDE, SIDE, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    graph = export_graph(ClassifierOnly(first_convolution({"kernel_size": 3, "padding": 1}, spec), spec))
    rewritten = prepare_graph(graph, bytes_in=True)
    images = pictures(8, 9)
    (exact,), (found,) = predictions(graph.model, images), predictions(rewritten.proto, images)
    assert np.abs(found - exact).max() < 5e-3 * np.ptp(exact)
    center = ClassifierOnly(first_convolution({"kernel_size": 3}, spec), spec)  # without padding nothing is rounded
    graph = export_graph(center)
    (exact,), (found,) = (
        predictions(graph.model, images),
        predictions(prepare_graph(graph, bytes_in=True).proto, images),
    )
    np.testing.assert_allclose(found, exact, atol=2e-5 * float(np.abs(exact).max()))


def without_bias(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a graph whose layers without a bias omit it by an empty name, as some exporters do."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    for node in changed.graph.node:
        if node.op_type in ("Conv", "Gemm"):
            node.input[:] = [*node.input[:2], ""]
    return changed


def test_bias_omitted_by_an_empty_name_is_zero(pictures) -> None:
    """The layers are a stem, the 1 x 1 convolutions of a squeeze-and-excitation, and dense layers."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 64, 3, 2, 1)
            self.gate = nn.Sequential(nn.Conv2d(64, 8, 1), nn.ReLU(), nn.Conv2d(8, 64, 1), nn.Sigmoid())
            self.large = nn.Linear(64 * 8**2, 64)
            self.last = nn.Linear(64, CLASSES)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.stem(x).relu()
            x = x * self.gate(x.mean((2, 3), keepdim=True))
            x = nn.functional.adaptive_avg_pool2d(x, 8).flatten(1)
            return self.last(self.large(x).relu())

    torch.manual_seed(0)
    graph = export_graph(ClassifierOnly(randomised(Net()), EVEN))
    graph = replace(graph, model=without_bias(graph.model))
    images = pictures(8, 8)
    exact = predictions(graph.model, images)[0]
    prepared = prepare_graph(graph, bytes_in=True)
    assert prepared.pixel_zero is not None and [node.op_type for node in prepared.model.graph].count("Gemm") == 4
    np.testing.assert_allclose(predictions(prepared.proto, images)[0], exact, atol=2e-5 * float(np.abs(exact).max()))
    quantized = quantize(graph, pictures(24, 1), pictures(8, 2), QuantizationRecipe())
    found = predictions(quantized.model, images)[0]
    assert np.corrcoef(found.ravel(), exact.ravel())[0, 1] > 0.99


def test_unknown_input_layers_are_unchanged() -> None:
    graph = export_graph(ClassifierOnly(nn.Sequential(nn.ReLU(), *first_convolution({"kernel_size": 3}, SPEC)), SPEC))
    rewritten = prepare_graph(graph, bytes_in=True)
    assert rewritten.pixel_zero is None
    assert [node.op_type for node in rewritten.model.graph][:4] == ["Transpose", "Cast", "Sub", "Mul"]


@pytest.mark.parametrize("name", ["hard swish", "swish"])
def test_gated_activations_use_integer_kernels(name: str, export, pictures, tmp_path) -> None:
    quantized = quantize(export(name).graph, pictures(24, 1), pictures(8, 2), QuantizationRecipe())
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(quantized.model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    nodes = onnx.load(tmp_path / "optimized.onnx").graph.node
    operations = [node.op_type for node in nodes]
    assert operations.count("QLinearConv") == 2 and operations.count("QLinearMul") == 2
    assert "QLinearGlobalAveragePool" in operations
    gates = {"hard swish": "Clip", "swish": "QLinearSigmoid"}
    assert gates[name] in operations
    # Only the gate of the excitation, eight values per image, is quantized again.
    assert operations.count("QuantizeLinear") == 1


def test_dense_body_layers_without_a_map_are_quantized() -> None:
    torch.manual_seed(0)
    features = [nn.Conv2d(3, 4, 3, stride=4), nn.ReLU(), nn.Flatten()]
    dense = [nn.Linear(4 * 8 * 8, 16), nn.ReLU(), nn.Linear(16, CLASSES)]
    rewritten = prepare_graph(
        export_graph(ClassifierOnly(nn.Sequential(*features, *dense).eval(), SPEC)), bytes_in=True
    )
    assert [layer.name for layer in layers_of(rewritten)] == ["0", "3"], "the last layer is the head"


def test_quantizable_nodes_belong_to_one_layer_each(export) -> None:
    for name in NETS:
        rewritten = prepare_graph(export(name).graph, bytes_in=True)
        layers = layers_of(rewritten)
        members = [node for layer in layers for node in layer.nodes]
        assert sorted(members) == sorted(quantizable_nodes(rewritten))
    assert [layer.name for layer in layers] == ["conv1", "conv2"], (
        "layers are not named after the modules of the PyTorch model"
    )


class Reusing(nn.Module):
    """Network that applies one convolution twice, with another in between."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.again = nn.Conv2d(3, 4, 3, stride=4), nn.Conv2d(4, 4, 3, padding=1)
        self.between, self.head = nn.Conv2d(4, 4, 1), nn.Linear(4, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.again(self.first(x).relu()).relu()
        return self.head(self.again(self.between(x).relu()).relu().mean((2, 3)))


def test_reused_convolution_is_one_layer() -> None:
    """Layers are kept in fp32 by name, so that both uses are kept and measured together."""
    torch.manual_seed(0)
    rewritten = prepare_graph(export_graph(wrap_for_export(Reusing().eval(), SPEC)), bytes_in=True)
    layers = layers_of(rewritten)
    assert [layer.name for layer in layers] == ["first", "again", "between"]
    convolutions = {node.name for node in rewritten.model.graph if node.op_type == "Conv"}
    assert [len(layer.nodes & convolutions) for layer in layers] == [1, 2, 1]
    assert sorted(node for layer in layers for node in layer.nodes) == sorted(quantizable_nodes(rewritten))


class MeansOfSides(nn.Module):
    """Network with a mean over two of five axes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3, stride=4), nn.Linear(4, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x).relu()
        parts = x.unflatten(1, (2, 2))
        return self.head((parts * parts.mean((2, 3), keepdim=True).sigmoid()).flatten(1, 2).mean((2, 3)))


def test_mean_over_other_axes_is_unchanged(pictures) -> None:
    torch.manual_seed(0)
    graph = export_graph(wrap_for_export(randomised(MeansOfSides()), EVEN))
    images = pictures(4, 7)
    for exact, found in zip(
        predictions(graph.model, images),
        predictions(prepare_graph(graph, bytes_in=True).proto, images),
        strict=True,
    ):
        np.testing.assert_allclose(found, exact, atol=2e-5 * float(np.abs(exact).max()) + 1e-6)
