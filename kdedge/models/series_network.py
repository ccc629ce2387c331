"""Convolutional networks for time series that keep the channels apart, so that maps have a row for each."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from kdedge.models.model_spec import ModelSpec

__all__ = ["SERIES_NETWORKS", "SERIES_STRIDE", "SeriesNetwork", "build_series_network"]

SERIES_NETWORKS: Mapping[str, int] = {"small": 16, "wide": 48}
"""Width of the first layer by name: `series:small` is the default student, and `series:wide` its teacher."""
SERIES_STRIDE = 4
"""Steps per map position; reduced for short windows by `ModelSpec.stride_factor`."""
_FIRST, _KERNEL = 9, 5
"""Kernel sizes in steps without a stride; one less or more with a stride of 2, see `_kernel`."""


def build_series_network(spec: ModelSpec, channels: int) -> nn.Module:
    """Build a network with random weights.

    Args:
        spec: specification, whose name is `series:` and a key of `SERIES_NETWORKS`.
        channels: number of channels, C.
    """
    width = SERIES_NETWORKS[spec.name.removeprefix("series:")]
    return SeriesNetwork(channels, spec.classes, width, SERIES_STRIDE // spec.stride_factor)


class SeriesNetwork(nn.Module):
    """Network from standardized series `[N, 1, C, T]` to logits `[N, K]`.

    The first layer has weights of its own for every channel. Later kernels of one row are shared by the channels, and
    every block adds what the channels have in common. Features are `[N, 2·width, C, T/stride]`. Global average pooling
    and one dense layer follow, so that the map of a class is a weighted sum of features, with a row for each channel.
    """

    def __init__(self, channels: int, classes: int, width: int, stride: int = SERIES_STRIDE) -> None:
        """Create a network with random weights.

        Args:
            channels: number of channels, C.
            classes: number of classes, K.
            width: features per channel in the first layer.
            stride: steps per map position: 1, 2 or 4.
        """
        super().__init__()
        self.own = ChannelConvolution(channels, width, 2 if stride > 2 else 1)
        self.blocks = nn.Sequential(
            MixingBlock(width, 2 * width, channels, 2 if stride > 1 else 1), MixingBlock(2 * width, 2 * width, channels)
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(2 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Compute logits `[N, K]`."""
        features = self.blocks(self.own(x))
        logits: Tensor = self.classifier(torch.flatten(self.pool(features), 1))
        return logits


def _kernel(size: int, stride: int) -> dict[str, Any]:
    """Return the options of a convolution in time whose outputs lie at the centers of their strides.

    An odd kernel with a stride of 2 has its center on every second step, half a step before the middle of the two that
    its output stands for. An even one has not, so that maps need no correction for display.
    """
    even = size + (size % 2) * (stride - 1)
    return {"kernel_size": (1, even), "stride": (1, stride), "padding": (0, (even - stride + 1) // 2)}


class ChannelConvolution(nn.Module):
    """Convolution in time with kernels of its own for every channel, `[N, 1, C, T]` to `[N, width, C, T']`."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.channels, self.width = channels, width
        self.convolution = nn.Conv2d(channels, channels * width, **_kernel(_FIRST, stride), groups=channels, bias=False)
        self.norm = nn.BatchNorm2d(channels * width)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve every channel."""
        separate = self.activation(self.norm(self.convolution(x.transpose(1, 2))))
        grouped: Tensor = separate.view(-1, self.channels, self.width, separate.shape[-1]).transpose(1, 2)
        return grouped


class MixingBlock(nn.Module):
    """Shared convolution in time, plus a convolution of the mean over the channels."""

    def __init__(self, inputs: int, outputs: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs, **_kernel(_KERNEL, stride), bias=False)
        self.common = None if channels == 1 else nn.Conv2d(inputs, outputs, **_kernel(1, stride), bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve the features `[N, inputs, C, T]` of every channel."""
        y = self.convolution(x)
        if self.common is not None:
            y = y + self.common(x.mean(dim=2, keepdim=True))
        activated: Tensor = self.activation(self.norm(y))
        return activated
