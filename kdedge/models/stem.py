"""Stem adaptation of models for large photos to small images.

A model with output stride 32 leaves 2×2 positions for a 64 px image, too coarse for a useful map. Removing strides from
the first layers keeps the resolution. It increases latency, and for small images also accuracy.
"""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from kdedge_export.saliency.tracing import evaluating
from kdedge_runtime.errors import UsageError

__all__ = ["output_strides", "reduce_stride"]

_Strided = nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d


def reduce_stride(model: nn.Module, factor: int, size: int, *, fresh: bool) -> int:
    """Remove early strides from a model in place, until its output stride is reduced by `factor`.

    Args:
        model: any convolutional classifier.
        factor: power of two; 1 changes nothing.
        size: size of the square input in px.
        fresh: True for an untrained model. A stem kernel wider than 3×3 then becomes 3×3, as it would cover too much of
            a small image, and a pooling layer without stride is removed.

    Returns:
        The factor reached; smaller than requested if the model has too few strided layers.

    Raises:
        UsageError: the model does not accept an input of this size.
    """
    reached = 1
    while reached < factor:
        levels = _strided_levels(model, size)
        if not levels:
            break
        first = levels[max(levels)]
        for path in first.paths:
            _take_stride(model, path, fresh)
        reached *= first.stride
    return reached


def output_strides(model: nn.Module, size: int) -> tuple[int, ...]:
    """Return the output stride of the model and the smaller ones it can be reduced to.

    Returns:
        Output strides in descending order as early strides are removed level by level: 32, 16, … for most models,
            but 32, 8, 4, … for a model with 4 px patches.

    Raises:
        UsageError: the model does not accept an input of this size.
    """
    levels = _strided_levels(model, size)
    early_first = [levels[side].stride for side in sorted(levels, reverse=True)]
    return tuple(math.prod(early_first[taken:]) for taken in range(len(early_first) + 1))


@dataclass
class _Level:
    """Strided layers at one resolution: one on the main path, possibly others on shortcuts."""

    stride: int
    paths: list[str] = field(default_factory=list)


def _strided_levels(model: nn.Module, size: int) -> dict[int, _Level]:
    """Return the strided layers by the side of their input."""
    levels: dict[int, _Level] = {}

    def note(path: str, layer: _Strided, inputs: tuple[Tensor, ...]) -> None:
        levels.setdefault(inputs[0].shape[-1], _Level(_stride(layer))).paths.append(path)

    handles = [
        module.register_forward_pre_hook(lambda layer, inputs, path=path: note(path, layer, inputs))
        for path, module in model.named_modules()
        if isinstance(module, _Strided) and _stride(module) > 1
    ]
    device = next(model.parameters()).device
    try:
        with evaluating(model), torch.no_grad():
            model(torch.zeros(1, 3, size, size, device=device))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise UsageError(
            f"{type(model).__name__} does not accept images of {size} × {size} px: {error}. "
            "Choose another --size (such as 224) or another model."
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    return levels


def _stride(layer: _Strided) -> int:
    stride = layer.stride
    return stride[0] if isinstance(stride, tuple) else stride


def _take_stride(model: nn.Module, path: str, fresh: bool) -> None:
    layer = model.get_submodule(path)
    if isinstance(layer, nn.Conv2d):
        layer.stride = (1, 1)
        if fresh and layer.kernel_size[0] > 3:
            narrow = nn.Conv2d(
                layer.in_channels, layer.out_channels, 3, padding=1, groups=layer.groups, bias=layer.bias is not None
            )
            nn.init.kaiming_normal_(narrow.weight, mode="fan_out", nonlinearity="relu")
            model.set_submodule(path, narrow)
    elif fresh:
        model.set_submodule(path, nn.Identity())
    elif isinstance(layer, nn.MaxPool2d | nn.AvgPool2d):
        layer.stride = 1
