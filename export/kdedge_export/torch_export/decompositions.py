"""Derivatives as forward operations, for PyTorch operators without an ONNX equivalent."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._decomp import get_decompositions
from torch.nn import functional as F

__all__ = ["DECOMPOSITIONS"]

aten = torch.ops.aten


def _convolution(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    bias_sizes: Any,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    output_padding: list[int],
    groups: int,
    output_mask: list[bool],
) -> tuple[Tensor | None, None, None]:
    """Compute the gradient of the input; weights are frozen."""
    if not output_mask[0]:
        return None, None, None
    if _is_dense(x, weight, padding, transposed, groups):
        return _on_one_position(gradient.flatten(1) @ weight.squeeze((2, 3))), None, None
    sides, none = range(len(stride)), [0] * len(stride)
    if transposed:
        return aten.convolution(gradient, weight, None, stride, padding, dilation, False, none, groups), None, None
    full = [dilation[side] * (weight.shape[2 + side] - 1) for side in sides]
    if all(step == 1 for step in stride) and all(full[side] >= padding[side] for side in sides):
        # At stride 1 it is an ordinary convolution with the flipped kernel, which has fast implementations.
        turned = weight.flip([2 + side for side in sides])
        turned = turned.reshape(groups, -1, *turned.shape[1:]).transpose(1, 2).flatten(0, 1)
        rest = [full[side] - padding[side] for side in sides]
        return aten.convolution(gradient, turned, None, stride, rest, dilation, False, none, groups), None, None
    missing = [
        x.shape[2 + side] - ((gradient.shape[2 + side] - 1) * stride[side] - 2 * padding[side] + full[side] + 1)
        for side in sides
    ]
    return aten.convolution(gradient, weight, None, stride, padding, dilation, True, missing, groups), None, None


def _dense(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    output_padding: list[int],
    groups: int,
) -> Any:
    """Rewrite a 1 × 1 convolution of pooled values as a dense layer."""
    if not _is_dense(x, weight, padding, transposed, groups):
        return NotImplemented
    x, matrix = x.flatten(1), weight.squeeze((2, 3)).t()
    return _on_one_position(x @ matrix if bias is None else torch.addmm(bias, x, matrix))


def _is_dense(x: Tensor, weight: Tensor, padding: list[int], transposed: bool, groups: int) -> bool:
    one = x.ndim == 4 and x.shape[2] == x.shape[3] == weight.shape[2] == weight.shape[3] == 1
    return one and groups == 1 and not transposed and not any(padding)


def _on_one_position(x: Tensor) -> Tensor:
    return x.reshape(x.shape[0], -1, 1, 1)  # `len` would fix the batch size


def _max_pool(
    gradient: Tensor,
    x: Tensor,
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    ceil_mode: bool,
    indices: Tensor,
) -> Tensor:
    return _to_maxima(gradient, x, indices)


def _to_maxima(gradient: Tensor, x: Tensor, indices: Tensor) -> Tensor:
    """Scatter each window's gradient to its maximum."""
    planes = x.new_zeros(x.shape).flatten(2)
    return planes.scatter_add(2, indices.flatten(2), gradient.flatten(2)).reshape(x.shape)


def _adaptive_max_pool(x: Tensor, size: list[int]) -> Any:
    """Rewrite windows of equal size as an ordinary pool; one output position is a maximum over all."""
    window = [side // positions for side, positions in zip(x.shape[2:], size, strict=True)]
    if any(side % positions for side, positions in zip(x.shape[2:], size, strict=True)):
        return NotImplemented
    return aten.max_pool2d_with_indices(x, window, window)


def _average_pool(
    gradient: Tensor,
    x: Tensor,
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Tensor:
    """Spread each window's gradient evenly over its pixels."""
    sides = range(2)
    kernel, padding = _pair(kernel), _pair(padding)
    stride = _pair(stride) if len(stride) else kernel
    height, width = x.shape[2:]
    ends = [(gradient.shape[2 + side] - 1) * stride[side] + kernel[side] for side in sides]  # with front padding
    if divisor_override is not None or (count_include_pad and not ceil_mode):
        gradient = gradient / (divisor_override or kernel[0] * kernel[1])
    else:
        inside = x.new_ones(1, 1, height, width)
        if count_include_pad:
            inside = F.pad(inside, (padding[1], padding[1], padding[0], padding[0]), value=1.0)
            inside = F.pad(inside, (0, max(0, ends[1] - inside.shape[3]), 0, max(0, ends[0] - inside.shape[2])))
        else:
            behind = [max(0, ends[side] - padding[side] - x.shape[2 + side]) for side in sides]
            inside = F.pad(inside, (padding[1], behind[1], padding[0], behind[0]))
        window = x.new_ones(1, 1, *kernel)
        gradient = gradient / aten.convolution(inside, window, None, stride, [0, 0], [1, 1], False, [0, 0], 1)
    channels = x.shape[1]
    ones = x.new_ones(channels, 1, *kernel)
    spread = aten.convolution(gradient, ones, None, stride, [0, 0], [1, 1], True, [0, 0], channels)
    lacking = [max(0, padding[side] + x.shape[2 + side] - ends[side]) for side in sides]
    spread = F.pad(spread, (0, lacking[1], 0, lacking[0]))
    return spread[:, :, padding[0] : padding[0] + height, padding[1] : padding[1] + width]


def _pair(sizes: list[int]) -> list[int]:
    return [sizes[0], sizes[-1]]


def _adaptive_average_pool(gradient: Tensor, x: Tensor) -> Tensor:
    """Multiply by the matrix of the windows' weights along each side."""
    if gradient.shape[2:] == x.shape[2:]:
        return gradient
    rows = _shares(x.shape[2], gradient.shape[2], x)
    columns = _shares(x.shape[3], gradient.shape[3], x)
    return rows @ gradient @ columns.transpose(0, 1)


def _shares(side: int, windows: int, like: Tensor) -> Tensor:
    """Return `[side, windows]`, the weight of each pixel in each window's average."""
    shares = [[0.0] * windows for _ in range(side)]
    for window in range(windows):
        start, end = window * side // windows, -(-(window + 1) * side // windows)
        for pixel in range(start, end):
            shares[pixel][window] = 1 / (end - start)
    return torch.tensor(shares, dtype=like.dtype, device=like.device)


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    **get_decompositions(
        [
            aten._log_softmax_backward_data,
            aten._softmax_backward_data,
            aten.elu_backward,
            aten.gelu_backward,
            aten.glu_backward,
            aten.hardsigmoid_backward,
            aten.hardswish_backward,
            aten.hardtanh_backward,
            aten.leaky_relu_backward,
            aten.mish_backward,
            aten.native_batch_norm_backward,
            aten.native_group_norm_backward,
            aten.native_layer_norm_backward,
            aten.select_backward,
            aten.sigmoid_backward,
            aten.silu_backward,
            aten.slice_backward,
            aten.softplus_backward,
            aten.tanh_backward,
            aten.threshold_backward,
            aten.unfold_backward,
        ]
    ),
    aten.convolution.default: _dense,
    aten.convolution_backward.default: _convolution,
    aten.max_pool2d_with_indices_backward.default: _max_pool,
    aten.adaptive_max_pool2d.default: _adaptive_max_pool,
    aten.adaptive_max_pool2d_backward.default: _to_maxima,
    aten.avg_pool2d_backward.default: _average_pool,
    aten._adaptive_avg_pool2d_backward.default: _adaptive_average_pool,
}
"""Decompositions for `make_fx` of operators that the ONNX exporter cannot translate, or not efficiently."""
