"""Gradients of logits and maps with respect to the weights, which a loss on maps trains."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import VisionTransformer

from kdedge_export.saliency import AttentionExplainer, CAMExplainer, ExplainedModel, make_explained

SIDE, CLASSES, STEP = 32, 5, 1e-6


def pooled() -> nn.Module:
    body = (nn.Conv2d(3, 6, 3, 2, 1), nn.Tanh(), nn.Conv2d(6, 6, 3, 1, 1), nn.Tanh())
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, CLASSES))


def gridded() -> nn.Module:
    body = (nn.Conv2d(3, 6, 3, 2, 1), nn.Tanh(), nn.AdaptiveAvgPool2d(4), nn.Flatten())
    return nn.Sequential(*body, nn.Linear(96, 12), nn.Tanh(), nn.Linear(12, CLASSES))


def attending() -> nn.Module:
    return VisionTransformer(SIDE, 8, 2, 2, 16, 32, num_classes=CLASSES)


CASES = [(pooled, CAMExplainer), (gridded, CAMExplainer), (attending, AttentionExplainer)]


@pytest.fixture(params=CASES, ids=["closed form", "differentiated", "attention"])
def explained(request: pytest.FixtureRequest) -> ExplainedModel:
    """Network of each kind of explainer in float64, without weights of zero."""
    make, kind = request.param
    torch.manual_seed(0)
    model = make().double().eval()
    for parameter in model.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.5)
    found = make_explained(model, torch.zeros(1, 3, SIDE, SIDE, dtype=torch.float64))
    assert isinstance(found, kind)
    return found


@pytest.fixture
def samples() -> Tensor:
    return torch.randn(2, 3, SIDE, SIDE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_gradients_of_maps_equal_finite_differences(explained: ExplainedModel, samples: Tensor) -> None:
    classes = torch.tensor([[0, 3], [4, 1]])
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        shape = explained.class_maps(explained(samples), classes).shape
    weights = torch.randn(shape, dtype=torch.float64, generator=generator)

    def weighted() -> Tensor:
        return (explained.class_maps(explained(samples), classes) * weights).sum()

    parameters = [*explained.model.parameters()]
    gradients = torch.autograd.grad(weighted(), parameters, allow_unused=True, materialize_grads=True)
    compared = 0
    for parameter, gradient in zip(parameters, gradients, strict=True):
        direction = torch.randn(parameter.shape, dtype=torch.float64, generator=generator)
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter.add_(sign * STEP * direction)
                ends.append(weighted().item())
                parameter.sub_(sign * STEP * direction)
        numeric = (ends[0] - ends[1]) / (2 * STEP)
        assert (gradient * direction).sum().item() == pytest.approx(numeric, rel=1e-4, abs=1e-6)
        compared += abs(numeric) > 1e-3
    assert compared > len(parameters) / 2


def test_logits_have_the_gradients_of_the_model(explained: ExplainedModel, samples: Tensor) -> None:
    plain = copy.deepcopy(explained.model)
    explained(samples).logits.square().sum().backward()
    plain(samples).square().sum().backward()
    for (name, ours), theirs in zip(explained.model.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, msg=name)
    with torch.no_grad():
        assert not explained(samples).logits.requires_grad


def test_explainer_leaves_no_hooks_when_detached(explained: ExplainedModel, samples: Tensor) -> None:
    explained.detach()
    hooks = [
        hook for module in explained.model.modules() for hook in (*module._forward_hooks, *module._forward_pre_hooks)
    ]
    assert not hooks
    for _ in range(2):  # a second call changes nothing
        explained.attach()
    assert explained.class_maps(explained(samples), torch.zeros(2, 1, dtype=torch.int64)).isfinite().all()
