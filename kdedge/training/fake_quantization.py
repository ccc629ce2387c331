"""Simulated int8 quantization for quantization-aware training, with straight-through gradients.

Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", CVPR 2018;
the straight-through estimator is from Bengio et al., 2013.

The quantization points and scales are those of the int8 file, not only layer inputs. Errors at other points would
differ from the file's, and the student would learn to compensate for the wrong ones. The file's tensors are matched to
results of the student's function calls by their values on one image. The results may come from modules, functions or
operators.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from kdedge_export.quantization.qat_scales import QuantizationSteps, QuantizedTensors

__all__ = ["fake_quantized"]

_SAME = 1e-3
"""Maximum difference between a tensor in the fp32 graph and in PyTorch, relative to the largest value."""


class _Calls(TorchFunctionMode):
    """Numbers the results of function calls in one forward pass, and allows replacing them."""

    def __init__(
        self, weights: Mapping[int, Callable[[Tensor], Tensor]], result: Callable[[int, Tensor], Tensor]
    ) -> None:
        """Initialize the mode; a new instance is needed for every forward pass.

        Args:
            weights: transformations of parameters by `id`, applied to arguments of calls.
            result: receives the number and the result of a call, and returns the result to use.
        """
        super().__init__()
        self._weights, self._result, self._number = weights, result, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call `func` with replaced arguments and result."""
        if func is F.silu:  # two operations in the exported graph
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
def fake_quantized(
    student: nn.Module, model: nn.Module, file: QuantizedTensors, look: Callable[[], object]
) -> Iterator[int]:
    """Simulate the int8 file's quantization in every forward pass of the student while the context is active.

    The student runs in evaluation mode even when it is trained: batch statistics would cause a larger error than
    quantization. After the context only its weights have changed.

    Args:
        student: module that is called.
        model: classifier inside it, whose modules the file names.
        file: quantization points and scales.
        look: calls the student on the file's image, in the way it will be called.

    Yields:
        Number of file tensors without a match, such as those inside a fused PyTorch operation. They are not quantized.
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

    recognized = _Recognized(file)
    student.forward = lambda *args: with_calls(_Calls({}, recognized.note), *args)
    try:
        look()
        for name, number in recognized.numbers.items():
            rounded[number] = _rounding(file.steps[name])
        student.forward = lambda *args: with_calls(
            _Calls(weights, lambda number, result: rounded[number](result) if number in rounded else result), *args
        )
        yield len(file.steps) - len(recognized.numbers)
    finally:
        del student.forward  # restores the method of the class


class _Recognized:
    """Matches function calls to tensors of the file."""

    def __init__(self, file: QuantizedTensors) -> None:
        self._values = {name: torch.from_numpy(value).flatten() for name, value in file.values.items()}
        self._errors = dict.fromkeys(file.values, _SAME)
        self.numbers: dict[str, int] = {}
        """Index of the closest call for each tensor; the first of equals, so that later calls use rounded values."""

    def note(self, number: int, result: Tensor) -> Tensor:
        """Compare the result of a call with all tensors of its size."""
        found = result.detach().flatten().cpu()
        for name, value in self._values.items():
            if value.shape == found.shape:
                error = float((found - value).abs().max() / value.abs().max().clamp(min=1e-9))
                if error < self._errors[name]:
                    self._errors[name], self.numbers[name] = error, number
        return result


def _rounding(steps: QuantizationSteps) -> Callable[[Tensor], Tensor]:
    return lambda value: torch.fake_quantize_per_tensor_affine(value, steps.scale, steps.zero, steps.least, steps.most)


def _rounded_weight(weight: Tensor, largest: int) -> Tensor:
    """Quantize weights to symmetric int8 per output channel; batch norm can still be folded."""
    reach = weight.detach().abs().flatten(1).amax(dim=1).clamp(min=1e-8)
    zero = torch.zeros(len(reach), dtype=torch.int32, device=weight.device)
    return torch.fake_quantize_per_channel_affine(weight, reach / largest, zero, 0, -largest, largest)
