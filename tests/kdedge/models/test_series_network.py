"""Networks for time series: shapes, sizes, and maps in closed form that equal differentiation."""

from dataclasses import replace

import pytest
import torch

from kdedge.config.train_config import TrainConfig
from kdedge.data import DatasetIndex, Split
from kdedge.data.series_samples import SeriesLayout, WindowSample
from kdedge.modalities.timeseries import TIMESERIES
from kdedge.models.model_spec import ModelSpec
from kdedge.models.series_network import SERIES_NETWORKS, SeriesNetwork
from kdedge_export.saliency import CAMExplainer, ClosedFormHead, make_explained
from kdedge_runtime.errors import UsageError
from kdedge_runtime.util.arrays import Floats


def randomized(network: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Give batch normalization statistics, so that no layer is the identity."""
    torch.manual_seed(seed)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean = torch.randn(module.num_features) * 0.3
            module.running_var = torch.rand(module.num_features) + 0.5
            torch.nn.init.normal_(module.bias, std=0.3)
    return network.eval()


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("stride", [1, 2, 4])
def test_features_keep_the_channels_and_lie_in_the_middle_of_their_strides(channels: int, stride: int) -> None:
    network = randomized(SeriesNetwork(channels, 3, 8, stride))
    assert isinstance(network, SeriesNetwork)
    x = torch.randn(2, 1, channels, 64, requires_grad=True)
    features = network.blocks(network.own(x))
    assert features.shape == (2, 16, channels, 64 // stride) and network(x).shape == (2, 3)
    at = 32 // stride
    (slope,) = torch.autograd.grad(features[0, :, 0, at].sum(), x)
    reached = slope[0, 0, 0].nonzero().flatten()
    assert (reached.min() + reached.max() + 1) / 2 == (at + 0.5) * stride


@pytest.mark.parametrize("channels", [1, 3])
def test_maps_in_closed_form_equal_differentiation(channels: int) -> None:
    network = randomized(SeriesNetwork(channels, 4, 8))
    assert isinstance(network, SeriesNetwork)
    explained = make_explained(network, torch.randn(1, 1, channels, 96))
    assert isinstance(explained, CAMExplainer) and isinstance(explained.head, ClosedFormHead)
    for seed in (1, 2):  # an exported gradient may be a constant
        x = torch.randn(3, 1, channels, 96, generator=torch.Generator().manual_seed(seed))
        classes = torch.tensor([[0, 3], [1, 2], [2, 0]])
        maps = explained.class_maps(explained(x), classes)
        assert maps.shape == (3, 2, channels, 24)
        features = network.blocks(network.own(x)).detach().requires_grad_()
        logits = network.classifier(network.pool(features).flatten(1))
        for column in range(2):
            (slope,) = torch.autograd.grad(
                logits.gather(1, classes[:, column, None]).sum(), features, retain_graph=True
            )
            expected = (slope * features).sum(dim=1)
            scale = (maps[:, column] * expected).sum() / expected.square().sum()  # maps have an arbitrary unit
            assert torch.allclose(maps[:, column], scale * expected, rtol=1e-5, atol=1e-6) and scale > 0


def test_first_layer_has_weights_of_its_own_for_every_channel() -> None:
    network = randomized(SeriesNetwork(3, 2, 8))
    assert isinstance(network, SeriesNetwork)
    x = torch.randn(1, 1, 1, 64).expand(1, 1, 3, 64).contiguous()
    separate = network.own(x)
    assert not torch.allclose(separate[:, :, 0], separate[:, :, 1])
    other = x.clone()
    other[:, :, 2] += 1
    assert torch.equal(network.own(other)[:, :, :2], separate[:, :, :2])


@pytest.mark.parametrize("channels", [1, 6])
def test_networks_are_small(channels: int) -> None:
    sizes = {
        name: sum(each.numel() for each in SeriesNetwork(channels, 10, width).parameters())
        for name, width in SERIES_NETWORKS.items()
    }
    assert sizes["small"] < 15_000 < sizes["wide"] < 100_000


def dataset(length: int, channels: int = 2) -> DatasetIndex:
    layout = SeriesLayout(tuple("abc"[:channels]), 50.0, ("g",) * channels)
    values: list[Floats] = [torch.randn(length, channels).numpy() for _ in range(4)]
    samples = tuple(WindowSample(str(number), "x", each, layout) for number, each in enumerate(values))
    split = Split(samples, (0, 1, 0, 1))
    return DatasetIndex("toy", ("up", "down"), split, split, None, "hashed", "0", "timeseries")


@pytest.mark.parametrize(("length", "positions"), [(16, 16), (40, 20), (128, 32)])
def test_map_resolution_follows_the_length(length: int, positions: int) -> None:
    model, spec = TIMESERIES.choose_network(TrainConfig("toy", "series:small"), [], dataset(length), on_cpu=True)
    assert spec.length == length and (spec.rate_hz, spec.units, spec.hop) == (50.0, ("g", "g"), length // 4)
    network = TIMESERIES.build_model(model, spec)
    assert isinstance(network, SeriesNetwork)
    assert network.blocks(network.own(torch.randn(1, 1, 2, length))).shape[-1] == positions
    finer = TrainConfig("toy", "small", output_stride=1)
    model, spec = TIMESERIES.choose_network(finer, [], dataset(length), on_cpu=True)
    assert model == ModelSpec("series:small", 2, stride_factor=4)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (TrainConfig("toy", "resnet18"), "series:"),
        (TrainConfig("toy", "series:smal"), "series:small"),
        (TrainConfig("toy", "series:small", size=64), "--size"),
        (TrainConfig("toy", "series:small", flip=True), "--flip"),
        (TrainConfig("toy", "series:small", output_stride=3), "--output-stride"),
    ],
)
def test_options_without_a_meaning_are_refused(request_: TrainConfig, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        TIMESERIES.choose_network(request_, [], dataset(64), on_cpu=True)


def test_teacher_of_other_channels_is_refused() -> None:
    from types import SimpleNamespace
    from typing import Any

    _, spec = TIMESERIES.choose_network(TrainConfig("toy", "series:wide"), [], dataset(64, 3), on_cpu=True)
    teacher: Any = SimpleNamespace(name="runs/teacher", input=spec)
    with pytest.raises(UsageError, match="runs/teacher"):
        TIMESERIES.choose_network(TrainConfig("toy", "series:small"), [teacher], dataset(64), on_cpu=True)
    teacher.input = replace(spec, std=(2.0, 2.0, 2.0))  # every model standardizes by itself
    TIMESERIES.choose_network(TrainConfig("toy", "series:small"), [teacher], dataset(64, 3), on_cpu=True)
