"""How the numbers of an image lie in memory: what is fast, and what is broken."""

import torch
from torch import nn

__all__ = ["memory_format"]

_ONEDNN_BLOCK = 16
"""Channels that oneDNN takes at a time with AVX-512; 8 with AVX2."""


def memory_format(model: nn.Module, device: torch.device) -> torch.memory_format:
    """Channels last, which tensor cores and oneDNN prefer, but for networks that crash so on a CPU.

    oneDNN writes past its workspace in the backward pass of a strided 1×1 convolution over fewer channels than it takes
    at a time: a crash, or wrong gradients (uxlfoundation/oneDNN issue 6035). `resnet10w8` has such a layer.
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
