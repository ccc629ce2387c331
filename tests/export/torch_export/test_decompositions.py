"""Test that decompositions of backward operations match PyTorch's gradients."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional as F

from kdedge_export.torch_export.decompositions import DECOMPOSITIONS

Function = Callable[[Tensor], Tensor]


def weight(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def conv(*shape: int, of: Callable[..., Tensor] = F.conv2d, **options: Any) -> Function:
    kernel = weight(*shape)
    return lambda x: of(x if len(shape) == 4 else x.flatten(2), kernel, **options)


FUNCTIONS: dict[str, Function] = {
    "convolution": conv(6, 4, 3, 3, padding=1),
    "without padding": conv(6, 4, 3, 3),
    "1 × 1 with padding": conv(6, 4, 1, 1, padding=1),
    "stride with a remainder": conv(6, 4, 3, 3, stride=2),
    "strides": conv(6, 4, 3, 5, stride=(3, 2), padding=(1, 2)),
    "dilated": conv(6, 4, 3, 3, dilation=2, padding=2),
    "dilated with a stride": conv(6, 4, 3, 2, dilation=(2, 3), padding=1, stride=2),
    "grouped": conv(6, 2, 3, 3, groups=2, padding=1),
    "depthwise with a stride": conv(8, 1, 3, 3, groups=4, padding=1, stride=2),
    "even kernel": conv(6, 4, 2, 4, padding=1),
    "transposed": conv(4, 6, 3, 3, of=F.conv_transpose2d, padding=1),
    "transposed with a stride": conv(4, 6, 3, 3, of=F.conv_transpose2d, stride=2, padding=1, output_padding=1),
    "transposed and grouped": conv(4, 3, 2, 2, of=F.conv_transpose2d, stride=2, groups=2),
    "1D": conv(6, 4, 3, of=F.conv1d, padding=1),
    "1D with a stride": conv(6, 4, 3, of=F.conv1d, stride=2, dilation=2),
    "1D transposed": conv(4, 6, 3, of=F.conv_transpose1d, stride=2),
    "max-pooling": lambda x: F.max_pool2d(x, 3, 2, 1, ceil_mode=True),
    "max-pooling with overlap": lambda x: F.max_pool2d(x, 3, 1, dilation=2),
    "global max-pooling": lambda x: F.adaptive_max_pool2d(x, 1),
    "adaptive max-pooling": lambda x: F.adaptive_max_pool2d(x, (3, 7)),
    "average pooling": lambda x: F.avg_pool2d(x, 3, 2, 1),
    "average pooling excluding padding": lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
    "average pooling in ceil mode": lambda x: F.avg_pool2d(x, (2, 3), (3, 2), (1, 1), ceil_mode=True),
    "average pooling in ceil mode excluding padding": lambda x: F.avg_pool2d(x, 3, 2, 1, True, False),
    "sum pooling": lambda x: F.avg_pool2d(x, 2, divisor_override=1),
    "adaptive average pooling with unequal windows": lambda x: F.adaptive_avg_pool2d(x, (4, 5)),
    "adaptive average pooling to a larger size": lambda x: F.adaptive_avg_pool2d(x, (12, 20)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradient_matches_pytorch(name: str) -> None:
    function = FUNCTIONS[name]
    x = 2 * weight(2, 4, 9, 14)
    slopes = weight(*function(x).shape)

    def gradient(x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        (found,) = torch.autograd.grad((function(x) * slopes).sum(), x)
        return found

    graph = make_fx(gradient, decomposition_table=DECOMPOSITIONS)(x)
    left = [
        str(node.target) for node in graph.graph.nodes if node.op == "call_function" and "backward" in str(node.target)
    ]
    assert not left
    for again in (x, x.flip(2) * 2):
        torch.testing.assert_close(graph(again), gradient(again))
