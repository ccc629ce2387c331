"""Give a network for large photos a stem that suits small images.

A network that divides the resolution by 32 leaves 2×2 cells of a 64 px image: too coarse for a map that points at
something. Taking strides out of the first layers keeps the resolution; it costs time, and for small images it gains
accuracy as well.
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
    """Take early strides out of a model, in place, until its resolution is `factor` times finer.

    Args:
        model: any convolutional classifier.
        factor: a power of two; 1 changes nothing.
        size: side of the square input, in px, that the model will be used with.
        fresh: whether the model has no trained weights yet; then a stem kernel wider than 3×3 becomes 3×3 (without
            its stride it would cover too much of a small image) and a pooling layer without stride is dropped.

    Returns:
        The factor that was reached; smaller than asked for when the model has too few strided layers.

    Raises:
        UsageError: the model cannot take an input of this size.
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
    """By how much the model divides the resolution through strided layers, and by how much it can be made to.

    Returns:
        Its own stride, then what is left of it as early strides are taken out, one level after the other: 32, 16, … for
        most networks, but 32, 8, 4, … for one that begins with patches of 4 px.

    Raises:
        UsageError: the model cannot take an input of this size.
    """
    levels = _strided_levels(model, size)
    early_first = [levels[side].stride for side in sorted(levels, reverse=True)]
    return tuple(math.prod(early_first[taken:]) for taken in range(len(early_first) + 1))


@dataclass
class _Level:
    """The strided layers that work at one resolution: one on the main path, perhaps others on shortcuts."""

    stride: int
    paths: list[str] = field(default_factory=list)


def _strided_levels(model: nn.Module, size: int) -> dict[int, _Level]:
    """The layers with a stride, by the side of their input."""
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
            f"{type(model).__name__} cannot take pictures of {size} × {size} px: {error}. "
            "Choose another --size (such as 224) or another network."
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
