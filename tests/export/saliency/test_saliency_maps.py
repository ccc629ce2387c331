"""Test closed-form maps against autograd and pytorch-grad-cam."""

from collections.abc import Callable

import pytest
import torch
import torchvision
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from small_nets import (
    CHANNELS,
    CLASSES,
    POSITIONS,
    HeadNet,
    PoolsFunction,
    RectifiesInPlace,
    SharesItsReLU,
    every_activation,
    hires_cam,
    inputs,
    randomised,
    relative_error,
    wide_linear,
)
from torch import Tensor, nn

from kdedge_export.saliency import CAMExplainer, find_head, make_explained
from kdedge_export.saliency.closed_form_head import ACTIVATIONS

TOLERANCE = 1e-5
MODULES = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "hardswish": nn.Hardswish,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
}
ARCHITECTURES = {
    "resnet18": ("layer4", "GAP+Linear"),
    "mobilenet_v2": ("features", "GAP+Linear"),
    "mobilenet_v3_small": ("features", "GAP+Linear+hardswish+Linear"),
    "efficientnet_b0": ("features", "GAP+Linear"),
}


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def closed_form_of(model: nn.Module, side: int = 32) -> CAMExplainer:
    explained = make_explained(model, inputs(1, 99, side))
    assert isinstance(explained, CAMExplainer) and explained.head == find_head(model, inputs(1, 99, side))
    return explained


def closed_form(explained: CAMExplainer, x: Tensor, classes: Tensor) -> Tensor:
    with torch.no_grad():
        return explained.class_maps(explained(x), classes[:, None])[:, 0]


def layer_of(explained: CAMExplainer) -> nn.Module:
    return explained.model.get_submodule(explained.head.target_layer)


def assert_is_grad_cam(model: nn.Module) -> None:
    """Compare the closed form with autograd over two batches, with another class for each image."""
    explained = closed_form_of(randomised(model))
    previous: Tensor | None = None
    for seed in (1, 2):
        x, classes = inputs(4, seed), torch.tensor([0, 3, 7, 9])
        expected = hires_cam(model, layer_of(explained), x, classes, of_input=explained.head.takes_input)
        maps = closed_form(explained, x, classes)
        assert maps.shape == (4, POSITIONS, POSITIONS)
        assert relative_error(maps, expected) <= TOLERANCE
        assert previous is None or relative_error(maps, previous) > 0.1, "maps do not depend on the input"
        previous = maps


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_slopes_match_autograd(name: str) -> None:
    function, slope = ACTIVATIONS[name]
    # Off the kinks, where the derivative is not defined.
    x = torch.arange(-8.005, 8, 0.01, dtype=torch.float64).requires_grad_()
    (expected,) = torch.autograd.grad(function(x).sum(), x)
    torch.testing.assert_close(slope(x.detach()), expected, rtol=1e-12, atol=1e-12)


def test_one_dense_layer() -> None:
    assert_is_grad_cam(HeadNet())


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_between_dense_layers(name: str) -> None:
    first = wide_linear(CHANNELS, 64)
    net = HeadNet(nn.Dropout(0.3), first, MODULES[name](), nn.Dropout(0.3), nn.Linear(64, CLASSES))
    seen: list[Tensor] = []
    first.register_forward_hook(lambda _module, _args, output: seen.append(output))
    assert_is_grad_cam(net)
    assert torch.cat(seen).min() < -3 and torch.cat(seen).max() > 6, (
        "the inputs do not cover all pieces of the activation"
    )


def test_all_activations_in_sequence() -> None:
    assert_is_grad_cam(every_activation())


def everything_in_place() -> nn.Module:
    return HeadNet(wide_linear(CHANNELS, 16), nn.Hardswish(inplace=True), nn.Linear(16, CLASSES), inplace=True)


def dense_convolutions() -> nn.Module:
    as_picture = nn.Unflatten(1, (CHANNELS, 1, 1))
    last = nn.Conv2d(16, CLASSES, 1, bias=False)
    return HeadNet(as_picture, nn.Conv2d(CHANNELS, 16, 1), nn.SiLU(), last, nn.Flatten())


def kernel_pooling() -> nn.Module:
    return HeadNet(pool=nn.AvgPool2d(POSITIONS))


def shared_activation() -> nn.Module:
    return SharesItsReLU(nn.AdaptiveAvgPool2d(1))


def channels_last() -> nn.Module:
    return HeadNet().to(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    "make",
    [
        everything_in_place,
        dense_convolutions,
        kernel_pooling,
        shared_activation,
        channels_last,
        PoolsFunction,
        RectifiesInPlace,
    ],
)
def test_model_implementations(make: Callable[[], nn.Module]) -> None:
    assert_is_grad_cam(make())


@pytest.fixture(scope="module", params=ARCHITECTURES)
def architecture(request: pytest.FixtureRequest) -> tuple[str, CAMExplainer]:
    torch.manual_seed(0)
    model = torchvision.models.get_model(request.param, weights=None, num_classes=CLASSES)
    return request.param, closed_form_of(randomised(model), 64)


def test_torchvision_models_match_autograd(architecture: tuple[str, CAMExplainer]) -> None:
    name, explained = architecture
    assert (explained.head.target_layer, explained.head.name) == ARCHITECTURES[name]
    for seed in (1, 2):
        x, classes = inputs(2, seed, 64), torch.tensor([2, 8])
        expected = hires_cam(explained.model, layer_of(explained), x, classes)
        assert relative_error(closed_form(explained, x, classes), expected) <= TOLERANCE


def test_torchvision_models_match_pytorch_grad_cam(architecture: tuple[str, CAMExplainer]) -> None:
    _, explained = architecture
    layer, classes = layer_of(explained), [2, 8]
    targets = [ClassifierOutputTarget(index) for index in classes]
    for seed in (1, 2):
        x = inputs(2, seed, 64)
        with GradCAM(explained.model, [layer]) as package:
            package(x, targets)
            (activations,), (gradients,) = (
                package.activations_and_grads.activations,
                package.activations_and_grads.gradients,
            )
            # The package's map before ReLU, scaling and resizing.
            raw = package.get_cam_image(x, layer, targets, activations.numpy(), gradients.numpy())
        maps = closed_form(explained, x, torch.tensor(classes))
        assert relative_error(maps, torch.from_numpy(raw)) <= TOLERANCE


def test_map_sums_to_the_logit() -> None:
    net = randomised(HeadNet())
    explained = closed_form_of(net)
    x = inputs(3, 6)
    with torch.no_grad():
        result = explained(x)
        maps = explained.class_maps(result, torch.arange(CLASSES).expand(3, -1))
    torch.testing.assert_close(maps.sum(dim=(2, 3)) + net.head[0].bias, result.logits)


def test_several_classes_match_single_classes() -> None:
    explained = closed_form_of(randomised(HeadNet(wide_linear(CHANNELS, 16), nn.Hardswish(), nn.Linear(16, CLASSES))))
    x = inputs(2, 7)
    classes = torch.tensor([[4, 0, 9], [1, 1, 5]])
    with torch.no_grad():
        maps = explained.class_maps(explained(x), classes)
    assert maps.shape == (2, 3, POSITIONS, POSITIONS)
    for column in range(3):
        torch.testing.assert_close(maps[:, column], closed_form(explained, x, classes[:, column]))
    torch.testing.assert_close(maps[1, 0], maps[1, 1], rtol=0, atol=0)


def test_explaining_leaves_logits_and_model_unchanged() -> None:
    net = randomised(HeadNet())
    x = inputs(2, 8)
    with torch.no_grad():
        before = net(x)
        logits, (activations,), _ = closed_form_of(net)(x)
        features = net.features(x)
    torch.testing.assert_close(logits, before, rtol=0, atol=0)
    torch.testing.assert_close(activations, features, rtol=0, atol=0)


def test_maps_are_trainable_and_ignore_head_dropout() -> None:
    torch.manual_seed(0)
    net = randomised(HeadNet(nn.Dropout(), wide_linear(CHANNELS, 16), nn.SiLU(), nn.Linear(16, CLASSES)))
    explained = closed_form_of(net)
    net.head.train()
    x, classes = inputs(2, 9), torch.tensor([[1], [2]])
    result, other = explained(x), explained(x)
    maps = explained.class_maps(result, classes)
    assert not torch.equal(result.logits, other.logits)
    torch.testing.assert_close(maps, explained.class_maps(other, classes), rtol=0, atol=0)
    maps.square().sum().backward()
    for name in ("features.0.weight", "head.1.weight", "head.3.weight"):
        gradient = net.get_parameter(name).grad
        assert gradient is not None and gradient.abs().max() > 0, name
