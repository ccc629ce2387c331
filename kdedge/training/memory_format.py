"""Memory format of image tensors, with a workaround for a oneDNN bug."""

import torch
from torch import nn

__all__ = ["memory_format"]

_ONEDNN_BLOCK = 16
"""Channels per oneDNN block with AVX-512; 8 with AVX2."""


def memory_format(model: nn.Module, device: torch.device) -> torch.memory_format:
    """Return channels-last, which tensor cores and oneDNN prefer, except for models that crash with it on a CPU.

    oneDNN writes past its workspace in the backward pass of a strided 1×1 convolution with fewer channels than a block:
    a crash, or wrong gradients (uxlfoundation/oneDNN issue 6035). `resnet10w8` has such a layer.
    """
    broken = device.type == "cpu" and any(_is_broken(layer) for layer in model.modules())
    return torch.contiguous_format if broken else torch.channels_last


def _is_broken(layer: nn.Module) -> bool:
    return (
        isinstance(layer, nn.Conv2d)
        and layer.kernel_size == (1, 1)
        and layer.stride != (1, 1)
        and layer.in_channels // layer.groups < _ONEDNN_BLOCK
    )
