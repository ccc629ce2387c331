"""Maps added to exported files equal those of PyTorch's autograd."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from exported_nets import TOLERANCE, AveragesTheLargest, FlattensItsMap, NormalisesThePooled, PoolsClasses, run, to_onnx
from small_nets import CHANNELS, CLASSES, NETS, SIDE, HeadNet, body, hires_cam, inputs, randomised, relative_error
from torch import Tensor, nn
from torch.nn import functional as F

from kdedge_export.errors import HeadNotSupported
from kdedge_export.onnx_import import ExplainedFile, add_saliency

WEIGHTS = Path(__file__).parents[3] / ".." / "shared" / "data" / "weights"


def assert_explains(done: ExplainedFile, model: nn.Module, target: nn.Module, side: int = SIDE, count: int = 3) -> None:
    """Check logits, classes and maps of two batches, for the top-1 class and for a given one."""
    for seed in (1, 2):
        x = inputs(count, seed, side)
        logits = model(x).detach()
        found = run(done.path, x)
        assert (found["output"] - logits).abs().max() <= 1e-5 * logits.abs().max().clamp_min(1)
        assert torch.equal(found["explained_class"], logits.argmax(1))
        expected = hires_cam(model, target, x, logits.argmax(1))
        assert relative_error(found["saliency_map"], expected) <= TOLERANCE
        requested = run(done.path, x, class_index=np.array([3]))
        assert requested["explained_class"].tolist() == [3] * count
        expected = hires_cam(model, target, x, torch.full((count,), 3))
        assert relative_error(requested["saliency_map"], expected) <= TOLERANCE


class Residual(nn.Module):
    """Block with a residual connection."""

    def __init__(self) -> None:
        super().__init__()
        self.features = body()
        self.side = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)
        self.fc = nn.Linear(CHANNELS, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        features = self.features(x)
        return self.fc(F.hardswish(features + self.side(features)).mean((2, 3)))


class TakesEverySecondCell(nn.Module):
    """Shortcut of the CIFAR ResNets: every second position with zero-padded channels, and then a slice."""

    def __init__(self) -> None:
        super().__init__()
        self.features = body()
        self.side = nn.Conv2d(CHANNELS, CHANNELS + 4, 3, stride=2, padding=1)
        self.fc = nn.Linear(CHANNELS + 4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        features = self.features(x)
        short = F.pad(features[:, :, ::2, 1::2], (0, 0, 0, 0, 2, 2))
        return self.fc(F.relu(self.side(features) + short)[:, :, 1:, :-1].mean((2, 3)))


def normalized_head() -> nn.Module:
    return HeadNet(nn.BatchNorm1d(CHANNELS), nn.Linear(CHANNELS, 16), nn.LeakyReLU(0.1), nn.Linear(16, CLASSES))


SMALL: dict[str, Callable[[], nn.Module]] = {
    **{name: NETS[name] for name in ("linear", "every activation")},
    "flattens its map": FlattensItsMap,
    "pools classes": PoolsClasses,
    "normalizes after pooling": NormalisesThePooled,
    "batch norm and leaky ReLU": normalized_head,
}


class TestHiResCam:
    @pytest.mark.parametrize("dynamo", [False, True], ids=["TorchScript exporter", "dynamo exporter"])
    @pytest.mark.parametrize("net", SMALL)
    def test_map_equals_autograd(self, tmp_path: Path, net: str, dynamo: bool) -> None:
        torch.manual_seed(0)
        model = randomised(SMALL[net]())
        path = to_onnx(model, tmp_path / "theirs.onnx", dynamo=dynamo)
        done = add_saliency(path, tmp_path / "ours.onnx")
        assert done.outputs.method == "hirescam"
        assert_explains(done, model, model.get_submodule("features"))

    def test_fixed_batch_is_supported(self, tmp_path: Path) -> None:
        model = randomised(FlattensItsMap())
        done = add_saliency(to_onnx(model, tmp_path / "theirs.onnx", batch=1), tmp_path / "ours.onnx")
        assert_explains(done, model, model.get_submodule("features"), count=1)

    def test_fixed_batch_of_several_images_is_rejected(self, tmp_path: Path) -> None:
        path = to_onnx(randomised(FlattensItsMap()), tmp_path / "theirs.onnx", batch=4)
        with pytest.raises(HeadNotSupported, match="batch of 4 images"):
            add_saliency(path, tmp_path / "ours.onnx")
        assert not (tmp_path / "ours.onnx").exists()

    def test_another_target_tensor_can_be_named(self, tmp_path: Path) -> None:
        model = randomised(NETS["linear"]())
        path = to_onnx(model, tmp_path / "theirs.onnx")
        first = next(item for item in _tensors(path) if item.endswith("Relu_output_0"))
        done = add_saliency(path, tmp_path / "ours.onnx", target=first, method="reciprocam")
        assert (done.outputs.map_height, done.outputs.map_width) == (16, 16)
        assert done.outputs.target_layer == first

    @pytest.mark.parametrize("dynamo", [False, True], ids=["TorchScript exporter", "dynamo exporter"])
    def test_target_read_by_a_strided_shortcut_is_supported(self, tmp_path: Path, dynamo: bool) -> None:
        torch.manual_seed(0)
        model = randomised(TakesEverySecondCell())
        path = to_onnx(model, tmp_path / "theirs.onnx", dynamo=dynamo)
        graph = onnx.load(path).graph
        side = next(node for node in graph.node if node.op_type == "Conv" and "side" in node.input[1])
        done = add_saliency(path, tmp_path / "ours.onnx", target=side.input[0])
        assert done.outputs.method == "hirescam"
        assert_explains(done, model, model.features)

    def test_target_on_a_side_path_is_supported(self, tmp_path: Path) -> None:
        """The second convolution of a residual block, before the sum: some paths to the logits bypass it."""
        torch.manual_seed(0)
        model = randomised(Residual())
        path = to_onnx(model, tmp_path / "theirs.onnx")
        name = next(item for item in _tensors(path) if item.startswith("/side/"))
        done = add_saliency(path, tmp_path / "ours.onnx", target=name)
        assert_explains(done, model, model.side)
        with pytest.raises(HeadNotSupported, match="also depend on the image in other ways"):
            add_saliency(path, tmp_path / "again.onnx", target=name, method="reciprocam")

    @pytest.mark.slow
    @pytest.mark.data
    @pytest.mark.parametrize(
        ("name", "layer", "dynamo"),
        [
            pytest.param(
                name, layer, dynamo, id=f"{name}, {'dynamo' if dynamo else 'TorchScript'} exporter", marks=marks
            )
            for name, layer, of_dynamo in (
                ("resnet18", "layer4", ()),
                ("mobilenet_v2", "features", pytest.mark.models),
                ("mobilenet_v3_small", "features", pytest.mark.models),
                ("squeezenet1_0", "features", ()),
                ("densenet121", None, pytest.mark.models),
                ("tf_efficientnet_lite0", "bn2", pytest.mark.models),
            )
            for dynamo, marks in ((False, ()), (True, of_dynamo))
        ],
    )
    def test_maps_of_real_networks_equal_autograd(
        self, tmp_path: Path, name: str, layer: str | None, dynamo: bool
    ) -> None:
        model = real_network(name)
        target = _Rectified(model) if layer is None else model
        done = add_saliency(to_onnx(model, tmp_path / "theirs.onnx", 128, dynamo=dynamo), tmp_path / "ours.onnx")
        assert done.outputs.method == "hirescam"
        assert_explains(done, target, target.get_submodule(layer or "relu"), 128, count=2)


class TestReciproCam:
    @pytest.mark.parametrize("batch", [None, 1], ids=["dynamic batch", "batch of one"])
    @pytest.mark.parametrize("dynamo", [False, True], ids=["TorchScript exporter", "dynamo exporter"])
    def test_map_is_each_positions_own_contribution(self, tmp_path: Path, dynamo: bool, batch: int | None) -> None:
        torch.manual_seed(0)
        model = randomised(AveragesTheLargest())
        path = to_onnx(model, tmp_path / "theirs.onnx", dynamo=dynamo, batch=batch)
        done = add_saliency(path, tmp_path / "ours.onnx")
        assert done.outputs.method == "reciprocam"
        assert done.no_derivative_of == "TopK"
        for seed in (1, 2):
            x = inputs(batch or 3, seed)
            found = run(done.path, x)
            expected = positions_alone(model.features, model.tail, x, found["explained_class"])
            assert relative_error(found["saliency_map"], expected) <= TOLERANCE

    def test_reciprocam_can_be_requested(self, tmp_path: Path) -> None:
        model = randomised(FlattensItsMap())
        done = add_saliency(to_onnx(model, tmp_path / "theirs.onnx"), tmp_path / "ours.onnx", method="reciprocam")
        x = inputs(2, 1)
        found = run(done.path, x)
        expected = positions_alone(
            model.features, lambda features: model.head(features.flatten(1)), x, found["explained_class"]
        )
        assert relative_error(found["saliency_map"], expected) <= TOLERANCE

    def test_reciprocam_equals_grad_cam_for_pooling_and_a_dense_layer(self, tmp_path: Path) -> None:
        model = randomised(NETS["linear"]())
        path = to_onnx(model, tmp_path / "theirs.onnx")
        both = [add_saliency(path, tmp_path / f"{m}.onnx", method=m) for m in ("gradcam", "reciprocam")]
        first, second = (run(done.path, inputs(2, 1))["saliency_map"] for done in both)
        assert relative_error(second, first) <= TOLERANCE

    @pytest.mark.models
    @pytest.mark.timeout(1200)
    def test_both_methods_support_vgg11(self, tmp_path: Path) -> None:
        model = real_network("vgg11")
        path = to_onnx(model, tmp_path / "theirs.onnx", 224)
        x = inputs(1, 1, 224)
        exact = add_saliency(path, tmp_path / "exact.onnx")
        assert_explains(exact, model, model.features, 224, count=1)
        again = add_saliency(path, tmp_path / "again.onnx", method="reciprocam")
        found = run(again.path, x)
        expected = positions_alone(
            model.features, lambda features: model.classifier(features.flatten(1)), x, found["explained_class"]
        )
        assert relative_error(found["saliency_map"], expected) <= TOLERANCE


class _Rectified(nn.Module):
    """DenseNet with its functional ReLU as a module."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.features, self.relu, self.classifier = model.features, nn.ReLU(), model.classifier

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.relu(self.features(x)).mean((2, 3)))


def positions_alone(
    features: Callable[[Tensor], Tensor], tail: Callable[[Tensor], Tensor], x: Tensor, classes: Tensor
) -> Tensor:
    """Compute ReciproCAM by its definition: one run per position, minus the logit without features."""
    with torch.no_grad():
        held = features(x)
        maps = torch.zeros(len(x), *held.shape[2:])
        none = tail(torch.zeros_like(held)).gather(1, classes[:, None])[:, 0]
        for row in range(held.shape[2]):
            for column in range(held.shape[3]):
                mask = torch.zeros(held.shape[2:])
                mask[row, column] = 1
                maps[:, row, column] = tail(held * mask).gather(1, classes[:, None])[:, 0] - none
    return maps


def real_network(name: str) -> nn.Module:
    """Return a network with trained weights if available, else random ones."""
    torch.manual_seed(0)
    if name == "tf_efficientnet_lite0":
        timm = pytest.importorskip("timm")
        model = timm.create_model(name)
    else:
        torchvision = pytest.importorskip("torchvision")
        model = torchvision.models.get_model(name, weights=None)
    files = list(WEIGHTS.glob(f"{name}*.safetensors"))
    if name in ("tf_efficientnet_lite0", "squeezenet1_0"):
        if not files:
            pytest.skip(f"the weights of {name} are not available")
        from safetensors.torch import load_file

        model.load_state_dict(load_file(files[0]))
    return model.eval()


def _tensors(path: Path) -> list[str]:
    import onnx

    return [name for node in onnx.load(path).graph.node for name in node.output]
