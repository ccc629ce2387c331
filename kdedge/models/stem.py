"""Reduction of a model's output stride for small images.

A model with output stride 32 leaves 2×2 positions for a 64 px image, too coarse for a useful map. An untrained model
loses its first strides, which increases latency, and for small images also accuracy. The filters of a trained model
would then see other scales, so it loses its last strides instead, and later kernels are dilated, as in DeepLab (Chen et
al., TPAMI 2018): the features at the original positions stay the same.
"""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from kdedge_export.saliency.tracing import evaluating
from kdedge_runtime.errors import UsageError

__all__ = ["output_strides", "reduce_stride"]


class _WindowMean(nn.Module):
    """Mean over a square window at every position, with a replicated border on the right and below."""

    stride = 1

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side, self.dilation = side, 1

    def forward(self, x: Tensor) -> Tensor:
        """Average float `[N, C, h, w]` without changing its size."""
        height, width = x.shape[2:]
        border = (0, (self.side - 1) * self.dilation) * 2
        padded = nn.functional.pad(x, border, mode="replicate")
        offsets = range(0, self.side * self.dilation, self.dilation)
        parts = [padded[:, :, row : row + height, column : column + width] for row in offsets for column in offsets]
        return torch.stack(parts).mean(dim=0)


_Windowed = nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d | _WindowMean


def reduce_stride(model: nn.Module, factor: int, size: int | tuple[int, int], *, fresh: bool) -> int:
    """Remove strides from a model in place, until its output stride is reduced by `factor`.

    Args:
        model: any convolutional classifier.
        factor: power of two; 1 changes nothing.
        size: side of the square input in px, or height and width.
        fresh: True for an untrained model, which loses its first strides. A stem kernel wider than 3×3 then becomes
            3×3, as it would cover too much of a small image, and a pooling layer without stride is removed. A trained
            model loses its last strides.

    Returns:
        The factor reached; smaller than requested if the model has too few strided layers.

    Raises:
        UsageError: the model does not accept an input of this size, or works only with its own strides.
    """
    reached = 1
    while reached < factor:
        levels = _strided_levels(model, size)
        if not levels:
            break
        if fresh:
            level = levels[max(levels)]
            for path in level.paths:
                _take_first_stride(model, path)
        else:
            level = levels[min(levels)]
            _take_last_stride(model, level)
        reached *= level.stride
        _run(
            model,
            size,
            "without some of its strides",
            "a larger --size, or the --output-stride of the original network",
        )
    return reached


def output_strides(model: nn.Module, size: int | tuple[int, int], *, fresh: bool) -> tuple[int, ...]:
    """Return the output stride of the model and the smaller ones it can be reduced to.

    Args:
        model: any convolutional classifier.
        size: side of the square input in px, or height and width.
        fresh: as for `reduce_stride`.

    Returns:
        Output strides in descending order as strides are removed level by level: 32, 16, … for most models, but 32, 8,
            4, … for an untrained model with 4 px patches.

    Raises:
        UsageError: the model does not accept an input of this size.
    """
    levels = _strided_levels(model, size)
    in_order = [levels[side].stride for side in sorted(levels, reverse=fresh)]
    return tuple(math.prod(in_order[taken:]) for taken in range(len(in_order) + 1))


@dataclass
class _Level:
    """Strided layers at one resolution, one on the main path, possibly others on shortcuts, and all later layers."""

    stride: int
    paths: list[str] = field(default_factory=list)
    later: list[str] = field(default_factory=list)
    """Convolutions and pooling layers at smaller resolutions."""


def _strided_levels(model: nn.Module, size: int | tuple[int, int]) -> dict[int, _Level]:
    """Return the strided layers by the side of their input."""
    sides: dict[str, int] = {}

    def note(path: str, inputs: tuple[Tensor, ...]) -> None:
        sides[path] = inputs[0].shape[-1]

    handles = [
        module.register_forward_pre_hook(lambda _, inputs, path=path: note(path, inputs))
        for path, module in model.named_modules()
        if isinstance(module, _Windowed)
    ]
    try:
        _run(model, size, "", "another --size (such as 224)")
    finally:
        for handle in handles:
            handle.remove()
    levels: dict[int, _Level] = {}
    for path, side in sides.items():
        stride = _stride(model.get_submodule(path))
        if stride > 1:
            levels.setdefault(side, _Level(stride)).paths.append(path)
    for side, level in levels.items():
        level.later = [path for path, other in sides.items() if other < side]
    return levels


def _run(model: nn.Module, size: int | tuple[int, int], condition: str, advice: str) -> None:
    """Run the model on a blank image.

    Raises:
        UsageError: the model does not accept an input of this size, or not without some of its strides.
    """
    device = next(model.parameters()).device
    height, width = size if isinstance(size, tuple) else (size, size)
    try:
        with evaluating(model), torch.no_grad():
            model(torch.zeros(1, 3, height, width, device=device))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise UsageError(
            f"{type(model).__name__} does not accept images of {width} × {height} px{condition and ' '}{condition}: "
            f"{error}. Choose {advice}, or another model."
        ) from error


def _stride(layer: nn.Module) -> int:
    stride = layer.stride
    return int(stride[0]) if isinstance(stride, tuple) else int(stride)  # type: ignore[arg-type]


def _take_first_stride(model: nn.Module, path: str) -> None:
    layer = model.get_submodule(path)
    if isinstance(layer, nn.Conv2d):
        layer.stride = (1, 1)
        if layer.kernel_size[0] > 3:
            narrow = nn.Conv2d(
                layer.in_channels, layer.out_channels, 3, padding=1, groups=layer.groups, bias=layer.bias is not None
            )
            nn.init.kaiming_normal_(narrow.weight, mode="fan_out", nonlinearity="relu")
            model.set_submodule(path, narrow)
    else:
        model.set_submodule(path, nn.Identity())


def _take_last_stride(model: nn.Module, level: _Level) -> None:
    for path in level.paths:
        layer = model.get_submodule(path)
        # Adjacent windows, as of the patches of ConvNeXt and the shortcuts of ResNet-D, had no border.
        if isinstance(layer, nn.Conv2d):
            layer.stride = (1, 1)
            if layer.padding == (0, 0) and layer.kernel_size == (level.stride, level.stride):
                layer.padding_mode, layer._reversed_padding_repeated_twice = "replicate", [0, level.stride - 1] * 2
        elif isinstance(layer, nn.AvgPool2d) and layer.padding in (0, (0, 0)):
            model.set_submodule(path, _WindowMean(level.stride))
        elif isinstance(layer, nn.MaxPool2d | nn.AvgPool2d):
            layer.stride = 1
    for path in level.later:
        _dilate(model.get_submodule(path), level.stride)


def _dilate(layer: nn.Module, factor: int) -> None:
    """Widen the spacing of a kernel; padding grows with it, so that the size of the output stays."""
    if isinstance(layer, _WindowMean):
        layer.dilation *= factor
    elif isinstance(layer, nn.Conv2d | nn.MaxPool2d) and set(_pair(layer.kernel_size)) != {1}:
        layer.dilation = tuple(factor * side for side in _pair(layer.dilation))
        if not isinstance(layer.padding, str):
            layer.padding = tuple(factor * side for side in _pair(layer.padding))
        if isinstance(layer, nn.Conv2d):
            layer._reversed_padding_repeated_twice = [factor * side for side in layer._reversed_padding_repeated_twice]


def _pair(value: int | tuple[int, ...]) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (value, value)
