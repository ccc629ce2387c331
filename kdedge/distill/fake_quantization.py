"""Let a student train with the errors that int8 will make, through rounding that gradients pass straight.

Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", CVPR 2018;
the straight-through estimator is that of Bengio et al., 2013.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

__all__ = ["fake_quantized"]

_STEPS = 255
"""Between the ends of an activation's range."""


class _Weight(nn.Module):
    """int8 per output channel, symmetric. Batch normalisation only scales channels, so it may be folded in later."""

    def __init__(self, largest: int) -> None:
        super().__init__()
        self.largest = largest

    def forward(self, weight: Tensor) -> Tensor:
        reach = weight.detach().abs().flatten(1).amax(dim=1).clamp(min=1e-8)
        zero = torch.zeros(len(reach), dtype=torch.int32, device=weight.device)
        return torch.fake_quantize_per_channel_affine(
            weight, reach / self.largest, zero, 0, -self.largest, self.largest
        )


class _Input:
    """A hook that rounds a layer's input to 256 values in a fixed range, and clips it there."""

    def __init__(self, low: float, high: float) -> None:
        low, high = min(low, 0.0), max(high, 0.0)
        self._scale = max((high - low) / _STEPS, 1e-8)
        self._zero = round(-low / self._scale)

    def __call__(self, _module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        value, *rest = args
        return torch.fake_quantize_per_tensor_affine(value, self._scale, self._zero, 0, _STEPS), *rest


def _evaluating(model: nn.Module, _args: tuple[Any, ...]) -> None:
    model.eval()


@contextmanager
def fake_quantized(
    model: nn.Module,
    inputs: Mapping[str, tuple[float, float]],
    weights: Collection[str],
    *,
    reduce_range: bool,
) -> Iterator[None]:
    """Round weights and inputs of layers to what int8 can hold, while the context lasts.

    Meanwhile the model computes as in evaluation even when it is trained: statistics of batches would be a larger error
    than the one it shall learn to make up for. Afterwards it is as before but for what it learned.

    Args:
        model: a classifier.
        inputs: range of the input of each layer whose input is quantized, by module path.
        weights: module paths of the layers whose weights are quantized.
        reduce_range: weights of 7 bits.
    """
    weight = _Weight(63 if reduce_range else 127)
    rounded = [model.get_submodule(path) for path in weights]
    handles = [model.register_forward_pre_hook(_evaluating)]
    try:
        for module in rounded:
            parametrize.register_parametrization(module, "weight", weight)
        for path, (low, high) in inputs.items():
            handles.append(model.get_submodule(path).register_forward_pre_hook(_Input(low, high)))
        yield
    finally:
        for handle in handles:
            handle.remove()
        for module in rounded:
            if parametrize.is_parametrized(module, "weight"):
                parametrize.remove_parametrizations(module, "weight", leave_parametrized=False)
