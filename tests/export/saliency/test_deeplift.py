"""DeepLIFT in closed form, compared with captum's DeepLIFT and integrated gradients, and with float64."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from captum.attr import DeepLift, IntegratedGradients
from torch import Tensor, nn

from kdedge_export.errors import HeadNotSupported
from kdedge_export.saliency import CAMExplainer, DenseExplainer, make_explained
from kdedge_export.saliency.head_finder import find_dense_network

FEATURES = (5, 1, 4)


def network(*widths: int, outputs: int = 3, activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    torch.manual_seed(len(widths))
    sizes = (int(np.prod(FEATURES)), *widths)
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, width in pairwise(sizes):
        layers += [nn.Linear(inputs, width), activation()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], outputs)).eval()


def features(count: int = 16, seed: int = 0) -> Tensor:
    return torch.randn(count, *FEATURES, generator=torch.Generator().manual_seed(seed))


def contributions(model: nn.Module, x: Tensor, classes: Tensor) -> Tensor:
    explained = make_explained(model, x[:1])
    assert isinstance(explained, DenseExplainer)
    explained.eval()
    with torch.no_grad():
        return explained.class_maps(explained(x), classes)


def wanted(count: int = 16) -> Tensor:
    return torch.arange(count)[:, None] % 3


@pytest.mark.parametrize("widths", [(), (12,), (12, 9), (8, 8, 8)])
@pytest.mark.parametrize("activation", [nn.ReLU, nn.Hardswish, nn.Tanh])
def test_contributions_add_up_to_the_logit(widths: tuple[int, ...], activation: type[nn.Module]) -> None:
    model, x = network(*widths, activation=activation), features()
    with torch.no_grad():
        gained = model(x) - model(torch.zeros_like(x[:1]))
    sums = contributions(model, x, wanted()).sum(dim=(2, 3))
    torch.testing.assert_close(sums, gained.gather(1, wanted()), rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:Setting forward")
@pytest.mark.parametrize("widths", [(12,), (12, 9)])
def test_equals_captum(widths: tuple[int, ...]) -> None:
    model, x = network(*widths), features()
    theirs = DeepLift(model).attribute(x, torch.zeros_like(x), target=wanted()[:, 0])
    ours = contributions(model, x, wanted())[:, 0]
    torch.testing.assert_close(ours, theirs.sum(dim=1), rtol=1e-4, atol=1e-5)


def test_one_hidden_layer_equals_integrated_gradients() -> None:
    """Each unit crosses zero once on the straight way from the reference, so that its mean slope is the multiplier."""
    model, x = network(12).double(), features(4).double()
    theirs = IntegratedGradients(model).attribute(x, torch.zeros_like(x), target=wanted(4)[:, 0], n_steps=1000)
    ours = contributions(model, x, wanted(4))[:, 0]
    torch.testing.assert_close(ours, theirs.sum(dim=1), rtol=1e-2, atol=2e-3)
    deep = network(12, 9).double()
    others = IntegratedGradients(deep).attribute(x, torch.zeros_like(x), target=wanted(4)[:, 0], n_steps=200)
    assert not torch.allclose(contributions(deep, x, wanted(4))[:, 0], others.sum(dim=1), rtol=1e-2, atol=1e-3)


def test_the_reference_itself_has_no_contributions() -> None:
    model, x = network(12, 9), torch.zeros(2, *FEATURES)
    assert not contributions(model, x, wanted(2)).any()
    tiny = torch.full((1, *FEATURES), 1e-9)
    slopes = torch.autograd.functional.jacobian(lambda some: model(some)[0, 0], tiny)
    found = contributions(model, tiny, torch.zeros(1, 1, dtype=torch.int64))[0, 0]
    torch.testing.assert_close(found, (slopes[0] * tiny[0]).sum(dim=0), rtol=1e-4, atol=1e-14)


def test_loss_on_contributions_has_gradients() -> None:
    model, x = network(12, 9).train(), features()
    explained = make_explained(model, x[:1])
    maps = explained.train().class_maps(explained(x), wanted())
    torch.autograd.backward(maps.square().sum())
    grads = [parameter.grad for parameter in model.parameters()]
    assert all(grad is not None and grad.any() for grad in grads[:-1])


def test_networks_with_other_layers_have_no_closed_form() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(20, 8), nn.LayerNorm(8), nn.Linear(8, 2))
    with pytest.raises(HeadNotSupported, match="dense layers"):
        find_dense_network(model, features(1))
    assert len(find_dense_network(network(12, 9), features(1))) == 5


def test_dense_networks_on_images_are_explained_on_request() -> None:
    model, image = nn.Sequential(nn.Flatten(), nn.Linear(48, 3)), torch.randn(1, 3, 4, 4)
    with pytest.raises(HeadNotSupported):
        make_explained(model, image)
    assert isinstance(make_explained(model, image, "deeplift"), DenseExplainer)


def test_convolutions_keep_their_default() -> None:
    model = nn.Sequential(nn.Conv2d(5, 6, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 2))
    assert isinstance(make_explained(model, torch.randn(1, 5, 8, 8)), CAMExplainer)
    with pytest.raises(HeadNotSupported):
        make_explained(model, torch.randn(1, 5, 8, 8), "deeplift")
