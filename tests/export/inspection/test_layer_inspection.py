"""Layer inspection and attribution, compared with PyTorch."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from exported_nets import to_onnx
from onnx_toys import body, head, node, weights, write
from small_nets import CHANNELS, CLASSES, inputs, randomised
from torch import Tensor, nn

from kdedge_export.inspection.class_weights import class_weights
from kdedge_export.inspection.layer_attribution import attribute_layers
from kdedge_export.inspection.layer_timing import time_layers
from kdedge_export.inspection.sampled_positions import sampled_positions
from kdedge_export.inspection.structure import structure_of
from kdedge_export.onnx_import import add_saliency


class Staged(nn.Module):
    """Three resolutions with typical layers: strides, groups, gates, sums, concatenation, average pooling."""

    def __init__(self, *, pool: nn.Module | None = None) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.SiLU())
        self.down = nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8)
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 8, 1), nn.Hardsigmoid())
        self.wide = nn.Conv2d(8, 4, 3, padding=1)
        self.pool = pool or nn.AvgPool2d(2)
        self.last = nn.Sequential(nn.Conv2d(12, CHANNELS, 1), nn.Hardswish())
        self.fc = nn.Linear(CHANNELS, CLASSES)

    def stages(self, x: Tensor) -> list[Tensor]:
        """Return the last activations of each resolution, fine to coarse."""
        first = self.first(x)
        down = self.down(first)
        down = down + down * self.gate(down)
        second = torch.cat([down, torch.relu(self.wide(down))], dim=1)
        return [first, second, self.last(self.pool(second))]

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.stages(x)[-1].mean((2, 3)))


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Staged, Path]:
    torch.manual_seed(0)
    model = randomised(Staged())
    return model, to_onnx(model, tmp_path_factory.mktemp("inspect") / "staged.onnx")


class Bottleneck(nn.Module):
    """Caffe-style bottleneck: the first 1 × 1 convolution has the stride, so that one position of four is read."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, 6, 1, stride=stride),
            nn.ReLU(),
            nn.Conv2d(6, 6, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(6, outputs, 1),
        )
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


class CaffeStyle(nn.Module):
    """Two stages, with a stride in the first convolution of the second one."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), Bottleneck(8, 8, 1))
        self.second = nn.Sequential(Bottleneck(8, CHANNELS, stride), Bottleneck(CHANNELS, CHANNELS, 1))
        self.fc = nn.Linear(CHANNELS, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.second(self.first(x)).mean((2, 3)))


class TestSkippedCells:
    """Positions skipped by a strided 1 × 1 convolution are left out of the map."""

    @pytest.mark.parametrize("stride", [2, 3])
    def test_map_has_only_read_positions(self, tmp_path: Path, stride: int) -> None:
        torch.manual_seed(0)
        model, x = randomised(CaffeStyle(stride)).eval(), inputs(1, 3)
        found = attribute_layers(onnx.load(to_onnx(model, tmp_path / "net.onnx")), {"input": x.numpy()}, "net")
        second, first = found.stages
        features = model.first(x).detach().requires_grad_()
        logit = model.fc(model.second(features).mean((2, 3)))[0, found.explained_class]
        (gradient,) = torch.autograd.grad(logit, features)
        evidence = (gradient * features)[0].detach()
        height, width = evidence.shape[1:]
        assert first.positions == (height, width)
        _assert_close(first.evidence.saliency_map, evidence.sum(0)[::stride, ::stride])
        assert (evidence != 0).sum() == (evidence[:, ::stride, ::stride] != 0).sum()  # nothing is lost
        by_channel = evidence.sum((1, 2))
        channel = first.evidence.channels[0]
        assert channel.evidence == pytest.approx(float(by_channel[channel.index]), rel=1e-4)
        _assert_close(channel.saliency_map, evidence[channel.index, ::stride, ::stride])
        assert second.evidence.saliency_map.shape == second.positions and second.evidence.shift == (0.0, 0.0)

    @pytest.mark.parametrize(
        ("size", "offset", "step"), [(8, 0, 2), (8, 1, 2), (9, 0, 2), (9, 2, 3), (7, 0, 2)], ids=str
    )
    def test_read_positions_have_the_correct_displacement(self, size: int, offset: int, step: int) -> None:
        slope = np.zeros((2, size, 8))
        slope[1, offset::step] = 1
        found = sampled_positions(slope)
        assert found.rows.tolist() == list(range(offset, size, step)) and found.columns.tolist() == list(range(8))
        places = (np.arange(len(found.rows)) + 0.5 + found.shift[1]) / len(found.rows)
        assert places.mean() == pytest.approx(((found.rows + 0.5) / size).mean()) and found.shift[0] == 0.0

    @pytest.mark.parametrize("read", [[0, 1, 2, 4, 6], [1, 4], [3], []], ids=str)
    def test_positions_without_a_regular_lattice_are_kept(self, read: list[int]) -> None:
        slope = np.zeros((1, 8, 8))
        slope[0, read] = 1
        found = sampled_positions(slope)
        assert len(found.rows) == len(found.columns) == 8 and found.shift == (0.0, 0.0)


class TestStructure:
    def test_shapes_parameters_and_macs_match_a_small_graph(self, tmp_path: Path) -> None:
        path = write(tmp_path / "net.onnx", body() + head())
        found = structure_of(onnx.load(path))
        layers = {layer.output: layer for layer in found.layers}
        assert layers["conv"].shape == (1, 12, 8, 8)
        assert layers["conv"].parameters == 12 * 3 * 4 * 4 + 12
        assert layers["conv"].macs == 12 * 8 * 8 * 3 * 4 * 4
        assert layers["logits"].parameters == 10 * 12 + 10
        assert layers["logits"].macs == 12 * 10
        assert layers["features"].parameters == layers["features"].macs == 0
        assert (found.parameters, found.macs) == (718, 36864 + 120)

    @pytest.mark.parametrize(
        ("name", "gmacs", "parameters"), [("resnet18", 1.814, 11.69e6), ("mobilenet_v3_small", 0.057, 2.54e6)]
    )
    def test_macs_and_parameters_match_published_values(
        self, tmp_path: Path, name: str, gmacs: float, parameters: float
    ) -> None:
        torchvision = pytest.importorskip("torchvision")  # its table lists both
        path = to_onnx(torchvision.models.get_model(name), tmp_path / "net.onnx", 224)
        found = structure_of(onnx.load(path))
        assert found.macs == pytest.approx(gmacs * 1e9, rel=0.02)
        assert found.parameters == pytest.approx(parameters, rel=0.01)

    def test_every_layer_with_macs_has_a_time(self, staged: tuple[Staged, Path]) -> None:
        model = onnx.load(staged[1])
        structure = structure_of(model)
        times = time_layers(model, {"input": inputs(1, 0).numpy()}, structure)
        working = {layer.name for layer in structure.layers if layer.macs}
        assert working <= times.by_layer_ms.keys() <= {layer.name for layer in structure.layers}
        assert all(taken > 0 for taken in (times.whole_ms, *(times.by_layer_ms[name] for name in working)))


class TestLayerAttribution:
    @pytest.mark.parametrize("class_index", [None, 4])
    def test_each_stage_is_gradient_times_activation(
        self, staged: tuple[Staged, Path], class_index: int | None
    ) -> None:
        model, path = staged
        for seed in (1, 2):
            x = inputs(1, seed)
            found = attribute_layers(onnx.load(path), {"input": x.numpy()}, "net", class_index=class_index)
            expected = _gradient_times_activation(model, x, class_index)
            assert [stage.way for stage in found.stages] == ["gradient × activation"] * 3
            assert [stage.positions for stage in found.stages] == [(8, 8), (16, 16), (32, 32)]
            for stage, evidence in zip(found.stages, expected[::-1], strict=True):
                _assert_close(stage.evidence.saliency_map, evidence.sum(0))
                by_channel = evidence.sum((1, 2))
                shares = (by_channel.abs() / by_channel.abs().sum()).sort(descending=True)
                assert [item.index for item in stage.evidence.channels] == shares.indices[:6].tolist()
                _assert_close(stage.evidence.shares, shares.values)
                _assert_close(stage.evidence.channels[0].saliency_map, evidence[shares.indices[0]])

    def test_ranking_and_features_match_pytorch(self, staged: tuple[Staged, Path]) -> None:
        model, path = staged
        x = inputs(1, 1)
        found = attribute_layers(onnx.load(path), {"input": x.numpy()}, "net", temperature=2.0)
        probabilities, order = (model(x) / 2.0).softmax(1)[0].sort(descending=True)
        assert [index for index, _ in found.ranking] == order[:5].tolist()
        assert found.explained_class == order[0]
        _assert_close(np.array([share for _, share in found.ranking]), probabilities[:5].detach())
        pooled = model.stages(x)[-1].mean((2, 3))[0].detach()
        for index, items in found.features_by_class.items():
            products = model.fc.weight[index].detach() * pooled  # w_i · a_i
            shares = products.abs() / products.abs().sum()
            assert [item.index for item in items] == shares.argsort(descending=True)[:6].tolist()
            _assert_close(np.array([item.share for item in items]), shares.sort(descending=True).values[:6])
            _assert_close(np.array([item.evidence for item in items]), products[[item.index for item in items]])

    def test_given_logits_determine_the_prediction(self, staged: tuple[Staged, Path]) -> None:
        """The evidence is still that of the graph."""
        model, feed = onnx.load(staged[1]), {"input": inputs(1, 1).numpy()}
        one_hot = np.zeros((1, CLASSES), np.float32)
        one_hot[0, 4] = 1.0
        given, alone = (
            attribute_layers(model, feed, "net", logits=one_hot),
            attribute_layers(model, feed, "net", class_index=4),
        )
        assert given.explained_class == 4 and given.ranking[0] == (4, pytest.approx(np.e / (np.e + CLASSES - 1)))
        assert alone.ranking[0][1] != given.ranking[0][1]
        for ours, theirs in zip(given.stages, alone.stages, strict=True):
            np.testing.assert_array_equal(ours.evidence.saliency_map, theirs.evidence.saliency_map)

    def test_last_stage_equals_the_map_in_the_file(self, staged: tuple[Staged, Path], tmp_path: Path) -> None:
        from kdedge_export.onnx_graph.graph_index import run_graph

        done = add_saliency(staged[1], tmp_path / "ours.onnx")
        model, feed = onnx.load(done.path), {"input": inputs(1, 3).numpy()}
        found = attribute_layers(model, feed, "net")
        _assert_close(
            found.stages[0].evidence.saliency_map, run_graph(model, ["saliency_map"], feed, "net")["saliency_map"][0]
        )

    @pytest.mark.parametrize(
        "pool",
        [
            nn.MaxPool2d(2),
            nn.MaxPool2d(3, 2, padding=1),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            nn.MaxPool2d(3, 2),
            nn.MaxPool2d(3, 1, padding=1),
        ],
        ids=str,
    )
    def test_attribution_through_max_pooling_matches_pytorch(self, tmp_path: Path, pool: nn.Module) -> None:
        torch.manual_seed(0)
        model = randomised(Staged(pool=pool))
        x = inputs(1, 1)
        found = attribute_layers(onnx.load(to_onnx(model, tmp_path / "net.onnx")), {"input": x.numpy()}, "net")
        by_positions = {tuple(item.shape[1:]): item for item in _gradient_times_activation(model, x, None)}
        assert len(found.stages) == len(by_positions)
        for stage in found.stages:
            assert stage.way == "gradient × activation"
            _assert_close(stage.evidence.saliency_map, by_positions[stage.positions].sum(0))

    def test_ablation_replaces_missing_derivatives(self, tmp_path: Path) -> None:
        torch.manual_seed(0)
        model = randomised(Staged(pool=nn.Sequential(nn.AvgPool2d(2), nn.CELU())))
        x = inputs(1, 1)
        path = to_onnx(model, tmp_path / "net.onnx")
        found = attribute_layers(onnx.load(path), {"input": x.numpy()}, "net")
        assert [stage.why_blanked for stage in found.stages] == [None, "Celu", "Celu"]
        stage = found.stages[1]
        with torch.no_grad():
            features = model.stages(x)[1]

            def logit(masked: Tensor) -> float:
                pooled = model.last(model.pool(masked)).mean((2, 3))
                return float(model.fc(pooled)[0, found.explained_class])

            for row, column in ((0, 0), (3, 5), (6, 6)):
                masked = features.clone()
                rows, columns = (slice(at * 16 // 7, (at + 1) * 16 // 7) for at in (row, column))
                masked[:, :, rows, columns] = 0
                assert stage.evidence.saliency_map[row, column] == pytest.approx(
                    logit(features) - logit(masked), abs=1e-5
                )
            masked = features.clone()
            masked[:, stage.evidence.channels[0].index] = 0
            assert stage.evidence.channels[0].evidence == pytest.approx(logit(features) - logit(masked), abs=1e-5)

    def test_channels_for_returns_the_channels_of_a_share(self, staged: tuple[Staged, Path]) -> None:
        found = attribute_layers(onnx.load(staged[1]), {"input": inputs(1, 1).numpy()}, "net").stages[0].evidence
        count = found.channels_for(0.5)
        assert found.shares[:count].sum() >= 0.5 > found.shares[: count - 1].sum()
        assert found.channels_for(1.0) <= len(found.shares) == CHANNELS


class TestClassWeights:
    @pytest.mark.parametrize("transposed", [True, False])
    def test_shares_of_a_linear_layer_match_its_weights(self, tmp_path: Path, transposed: bool) -> None:
        matrix = weights()["fc"]
        last = (
            node("Gemm", ["flat", "fc", "fc_bias"], "logits", transB=1)
            if transposed
            else node("MatMul", ["flat", "turned"], "logits")
        )
        nodes = [*body(), *head()[:2], last]
        found = class_weights(onnx.load(write(tmp_path / "net.onnx", nodes, {"turned": matrix.T.copy()})), CLASSES)
        assert found is not None
        _assert_close(found.shares, np.abs(matrix) / np.abs(matrix).sum(1, keepdims=True))
        one = np.sort(found.shares[3])[::-1]
        assert one[: found.features_for(0.5)[3]].sum() >= 0.5 > one[: found.features_for(0.5)[3] - 1].sum()

    def test_non_constant_head_has_no_class_weights(self, tmp_path: Path) -> None:
        nodes = [
            *body(),
            *head()[:2],
            node("Neg", ["fc"], "minus"),
            node("Gemm", ["flat", "minus"], "logits", transB=1),
        ]
        assert class_weights(onnx.load(write(tmp_path / "net.onnx", nodes)), CLASSES) is None


def _gradient_times_activation(model: Staged, x: Tensor, class_index: int | None) -> list[Tensor]:
    x = x.clone().requires_grad_()
    stages = model.stages(x)
    logits = model.fc(stages[-1].mean((2, 3)))
    target = logits[0].argmax() if class_index is None else class_index
    slopes = torch.autograd.grad(logits[0, target], stages)
    return [(value * slope)[0].detach() for value, slope in zip(stages, slopes, strict=True)]


def _assert_close(measured: np.ndarray, expected: Tensor | np.ndarray) -> None:
    expected = np.asarray(expected)
    assert measured.shape == expected.shape
    assert np.abs(measured - expected).max() <= 1e-4 * np.abs(expected).max()
