"""Memory formats: channels-last unless a network crashes with it."""

import pytest
import torch
from torch import nn

from kdedge.models.model_registry import build_model
from kdedge.models.model_spec import ModelSpec
from kdedge.training.compute_device import choose_device
from kdedge.training.instrumented_model import InstrumentedModel
from kdedge.training.memory_format import memory_format
from kdedge_runtime.modalities.image import ImageInput

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
SPEC = ImageInput(56, 56, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (nn.Conv2d(8, 16, 1, stride=2), torch.contiguous_format),
        (nn.Conv2d(32, 32, 1, stride=2, groups=4), torch.contiguous_format),
        (nn.Conv2d(16, 32, 1, stride=2), torch.channels_last),
        (nn.Conv2d(8, 16, 1), torch.channels_last),
        (nn.Conv2d(8, 16, 3, stride=2), torch.channels_last),
    ],
)
def test_only_networks_with_the_onednn_bug_use_contiguous_format(
    layer: nn.Module, expected: torch.memory_format
) -> None:
    assert memory_format(nn.Sequential(layer), CPU) is expected
    assert memory_format(nn.Sequential(layer), CUDA) is torch.channels_last


def test_narrow_network_has_correct_gradients() -> None:
    torch.manual_seed(0)
    watched = InstrumentedModel(build_model(ModelSpec("small:resnet10w8", 8), 56), SPEC, choose_device("cpu")).train()
    images = torch.randint(0, 256, (8, 56, 56, 3), dtype=torch.uint8)
    torch.autograd.backward(watched(images).logits.square().sum())
    found = {name: parameter.grad for name, parameter in watched.model.named_parameters()}
    exact = build_model(ModelSpec("small:resnet10w8", 8), 56).double().train()
    exact.load_state_dict(watched.model.state_dict())
    torch.autograd.backward(exact(watched.front_end(images).double()).square().sum())
    for name, parameter in exact.named_parameters():
        single, double = found[name], parameter.grad
        assert single is not None and double is not None
        # Not tighter: a unit near zero may be rectified on one side only. The oneDNN bug causes errors in the hundreds.
        assert (single.double() - double).norm() <= 0.02 * double.norm(), name
