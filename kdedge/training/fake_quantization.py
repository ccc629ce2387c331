"""Let a student train with the errors that an int8 file makes, through rounding that gradients pass straight.

Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", CVPR 2018;
the straight-through estimator is that of Bengio et al., 2013.

What is rounded is what the file rounds, where it rounds it and in its steps: inputs of layers alone are not all, and
errors made elsewhere are others, which a student that has learned to make up for them has the file's besides. The
file's tensors are recognised among the results of the student's function calls by their values on one picture, so that
they may come from modules, functions or operators.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from kdedge_export.quantize.qat_scales import Rounded, Steps

__all__ = ["fake_quantized"]

_SAME = 1e-3
"""Largest difference, relative to the largest value, between a tensor in the file's float graph and in PyTorch."""


class _Calls(TorchFunctionMode):
    """One forward pass, with the results of its calls numbered and given away to be exchanged."""

    def __init__(
        self, weights: Mapping[int, Callable[[Tensor], Tensor]], result: Callable[[int, Tensor], Tensor]
    ) -> None:
        """Prepare; a new one for every forward pass.

        Args:
            weights: what to do with parameters, by their `id`, wherever they go into a call.
            result: takes the number and the result of a call, and gives what is computed on with.
        """
        super().__init__()
        self._weights, self._result, self._number = weights, result, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call `func`."""
        if func is F.silu:  # two operations in a file
            return self._call(torch.mul, args[0], self._call(torch.sigmoid, args[0]))
        return self._call(func, *args, **(kwargs or {}))

    def _call(self, func: Any, *args: Any, **options: Any) -> Any:
        if func.__name__ in {"__get__", "__set__"}:
            return func(*args, **options)
        named = {name: self._exchanged(value) for name, value in options.items()}
        result = func(*map(self._exchanged, args), **named)
        if not isinstance(result, Tensor) or not result.is_floating_point():
            return result
        self._number += 1
        return self._result(self._number, result)

    def _exchanged(self, value: Any) -> Any:
        exchange = self._weights.get(id(value))
        return value if exchange is None else exchange(value)


@contextmanager
def fake_quantized(student: nn.Module, model: nn.Module, file: Rounded, look: Callable[[], object]) -> Iterator[int]:
    """Round in every forward pass of the student what the int8 file rounds, while the context lasts.

    Meanwhile the student computes as in evaluation even when it is trained: statistics of batches would be a larger
    error than the one it shall learn to make up for. Afterwards it is as before but for what it learned.

    Args:
        student: what is called.
        model: the classifier in it, whose modules the file names.
        file: what to round.
        look: calls the student on the file's picture, in the way that it will be called.

    Returns:
        How many of the file's tensors are not recognised, such as those within an operation that PyTorch has as one;
        they are not rounded.
    """
    forward = student.forward
    rounded: dict[int, Callable[[Tensor], Tensor]] = {}
    weights = {
        id(model.get_submodule(path).weight): lambda weight: _rounded_weight(weight, file.largest)
        for path in file.layers
    }

    def with_calls(calls: _Calls, *args: Any) -> Any:
        student.eval()
        with calls:
            return forward(*args)

    recognised = _Recognised(file)
    student.forward = lambda *args: with_calls(_Calls({}, recognised.note), *args)
    try:
        look()
        for name, number in recognised.numbers.items():
            rounded[number] = _rounding(file.steps[name])
        student.forward = lambda *args: with_calls(
            _Calls(weights, lambda number, result: rounded[number](result) if number in rounded else result), *args
        )
        yield len(file.steps) - len(recognised.numbers)
    finally:
        del student.forward  # the class's own is behind it


class _Recognised:
    """The calls whose results are the file's tensors."""

    def __init__(self, file: Rounded) -> None:
        self._values = {name: torch.from_numpy(value).flatten() for name, value in file.values.items()}
        self._errors = dict.fromkeys(file.values, _SAME)
        self.numbers: dict[str, int] = {}
        """Of the call that is nearest to each tensor, the first of several: what follows gets its rounded values."""

    def note(self, number: int, result: Tensor) -> Tensor:
        """Compare a call's result with all tensors of its size."""
        found = result.detach().flatten().cpu()
        for name, value in self._values.items():
            if value.shape == found.shape:
                error = float((found - value).abs().max() / value.abs().max().clamp(min=1e-9))
                if error < self._errors[name]:
                    self._errors[name], self.numbers[name] = error, number
        return result


def _rounding(steps: Steps) -> Callable[[Tensor], Tensor]:
    return lambda value: torch.fake_quantize_per_tensor_affine(value, steps.scale, steps.zero, steps.least, steps.most)


def _rounded_weight(weight: Tensor, largest: int) -> Tensor:
    """int8 per output channel, symmetric. Batch normalisation only scales channels, so it may be folded in later."""
    reach = weight.detach().abs().flatten(1).amax(dim=1).clamp(min=1e-8)
    zero = torch.zeros(len(reach), dtype=torch.int32, device=weight.device)
    return torch.fake_quantize_per_channel_affine(weight, reach / largest, zero, 0, -largest, largest)
