"""Interception of piecewise-linear activations and max-pooling.

Their inputs are recorded, and selected units are optionally moved across the kink.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

__all__ = ["ActivationCall", "BoundaryRecorder", "BoundaryUnit"]


@dataclass(frozen=True)
class BoundaryUnit:
    """Input value of a piecewise-linear function, with the offset that moves it across the kink."""

    call: int
    """Index of the intercepted call within a forward pass, from 0."""
    index: int
    """Index of the value in its flattened tensor."""
    push: float


@dataclass(frozen=True)
class ActivationCall:
    """One call of a piecewise-linear function."""

    number: int
    x: Tensor
    """Input of the function."""
    pools: bool
    """True for max-pooling; the others are elementwise."""
    shown: Tensor
    """Tensor that determines the side of each value: the output of an elementwise function, or the input of a pool."""
    turned: Callable[[Tensor, Tensor, Tensor], list[tuple[int, float]]]
    """Function that returns the indices and offsets of values near a kink that lie on its other side in another run
    (see `_flipped_units` and `_flipped_argmax`)."""


@dataclass(frozen=True)
class _Kink:
    at: float | Tensor
    """Position of the kink; a tensor if it differs by value."""
    value: float | Tensor
    """Function value at the kink."""
    flat: int
    """Side on which the function is constant: below (-1), above (1), or neither (0)."""


_ZERO = _Kink(0, 0, -1)
_INPLACE: dict[Any, int] = {F.relu: 0, F.relu6: 0, F.hardtanh: 2, F.hardswish: 0, F.hardsigmoid: 0, F.leaky_relu: 1}
"""Functions with an `inplace` argument, and its position after the input."""


def _flipped_units(boundaries: Sequence[_Kink], x: Tensor, results: Tensor, reach: Tensor) -> list[tuple[int, float]]:
    """Return the values that lie on different sides of a kink in two runs.

    Args:
        boundaries: kinks of the function.
        x: input of one run.
        results: output of the other run, of the same shape; it equals the flat value exactly on the flat side.
        reach: largest distance of each value from the kink, of the shape of `x`.
    """
    found: list[tuple[int, float]] = []
    for boundary in boundaries:
        gaps = (x - boundary.at).flatten()
        above = gaps >= 0 if boundary.flat > 0 else gaps > 0
        at_value = (results == boundary.value).flatten()
        theirs = {-1: ~at_value, 0: (results > boundary.value).flatten(), 1: at_value}[boundary.flat]
        near = gaps.abs() <= reach.flatten()
        for index in torch.nonzero(near & (above != theirs)).flatten().tolist():
            found.append((index, -2 * float(gaps[index]) or _step(x.flatten()[index], up=not above[index])))
    return found


def _flipped_argmax(
    args: tuple[Any, ...], options: dict[str, Any], x: Tensor, theirs: Tensor, reach: Tensor
) -> list[tuple[int, float]]:
    """Return the runner-up values of max-pooling windows that exceed the maximum in another run.

    Args:
        args: positional arguments of the function after its input.
        options: its keyword arguments.
        x: input of one run.
        theirs: input of the other run.
        reach: largest difference of both values, taken as the larger reach of the two; of the shape of `x`.
    """
    places = torch.arange(x.numel(), device=x.device, dtype=torch.float64).reshape(x.shape)
    order = _windows(places, -1.0, *args, **options).long()
    values = _windows(x.double(), float("-inf"), *args, **options)
    (first, second), ranked = values.topk(2, dim=1).values.T, values.topk(2, dim=1).indices
    best, next_best = order.gather(1, ranked).T
    others, flat = theirs.flatten(), reach.flatten()
    # A window outside the input has no runner-up; its index of -1 is only a valid placeholder.
    near = (next_best >= 0) & (first - second <= torch.maximum(flat[best], flat[next_best]))
    near[near.clone()] = others[next_best[near]] > others[best[near]]
    gaps = (first - second)[near].tolist()
    return [
        (index, 2 * gap or _step(x.flatten()[index], up=True))
        for index, gap in zip(next_best[near].tolist(), gaps, strict=True)
    ]


def _step(value: Tensor, *, up: bool) -> float:
    """Return the difference to the next float32 number above or below."""
    single = value.float()
    return float(torch.nextafter(single, torch.tensor(float("inf" if up else "-inf")).to(single)) - single)


def _windows(
    x: Tensor,
    outside: float,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    **_options: Any,
) -> Tensor:
    """Return the values under each max-pooling window, `[windows, values]`, with `outside` as padding."""
    size = (kernel_size, kernel_size) if isinstance(kernel_size, int) else tuple(kernel_size)
    steps = (stride or size,) * 2 if isinstance(stride or size, int) else tuple(stride or size)
    top, left = (padding, padding) if isinstance(padding, int) else tuple(padding)
    # The additional window of `ceil_mode` covers only padding there.
    bottom, right = (top + steps[0] - 1, left + steps[1] - 1) if ceil_mode else (top, left)
    padded = F.pad(x, (left, right, top, bottom), value=outside)
    return F.unfold(padded.flatten(0, 1)[:, None], size, dilation, 0, steps).transpose(1, 2).flatten(0, 1)


def _between(least: float | Tensor | None = None, most: float | Tensor | None = None) -> list[_Kink]:
    boundaries = [] if least is None else [_Kink(least, least, -1)]
    return boundaries if most is None else [*boundaries, _Kink(most, most, 1)]


def _boundaries(func: Any, args: tuple[Any, ...], options: dict[str, Any]) -> list[_Kink] | None:
    """Return the kinks of an elementwise function; None for any other."""
    if func in (F.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_):
        return [_ZERO]
    if func is F.relu6:
        return _between(0, 6)
    if func is F.hardtanh:
        low, high = (*args, -1.0, 1.0)[:2] if len(args) != 1 else (args[0], 1.0)
        return _between(options.get("min_val", low), options.get("max_val", high))
    if func in (torch.clamp, Tensor.clamp, Tensor.clamp_):
        low, high = (*args, None, None)[:2]
        return _between(options.get("min", low), options.get("max", high))
    if func is F.hardswish:
        return [_Kink(-3, 0, -1), _Kink(3, 3, 0)]
    if func is F.hardsigmoid:
        return [_Kink(-3, 0, -1), _Kink(3, 1, 1)]
    if func is F.leaky_relu:
        return [_Kink(0, 0, 0)]
    return None


def _in_place(func: Any, args: tuple[Any, ...], options: dict[str, Any]) -> bool:
    """Return True if a function modifies its first argument, given its other arguments."""
    place = _INPLACE.get(func)
    if place is None:
        return bool(func.__name__.endswith("_"))
    return bool(options.get("inplace", len(args) > place and args[place]))


class BoundaryRecorder(TorchFunctionMode):
    """Record calls of piecewise-linear functions inside the block, and move selected inputs."""

    def __init__(
        self, watch: Callable[[ActivationCall], None] | None = None, pushed: Sequence[BoundaryUnit] = ()
    ) -> None:
        """Prepare one forward pass; each needs a new instance.

        Args:
            watch: called with each recorded call.
            pushed: units to move.
        """
        super().__init__()
        self._calls, self._watch, self._pushed = 0, watch, pushed

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call `func` after moving the selected inputs."""
        options = dict(kwargs or {})
        if not (args and isinstance(args[0], Tensor) and args[0].is_floating_point()):
            return func(*args, **options)
        x, *rest = args
        boundaries = _boundaries(func, tuple(rest), options)
        if boundaries is None and func is not F.max_pool2d:
            return func(*args, **options)
        number, self._calls = self._calls, self._calls + 1
        pushed = [unit for unit in self._pushed if unit.call == number]
        if pushed:
            push = torch.zeros_like(x).flatten()
            push[[unit.index for unit in pushed]] = torch.tensor([unit.push for unit in pushed]).to(push)
            in_place = _in_place(func, tuple(rest), options)
            x = x.add_(push.view_as(x)) if in_place else x + push.view_as(x)
        if self._watch is None:
            return func(x, *rest, **options)
        before = x.detach().clone()
        result = func(x, *rest, **options)
        if boundaries is None:
            self._watch(ActivationCall(number, before, True, before, partial(_flipped_argmax, tuple(rest), options)))
        else:
            self._watch(ActivationCall(number, before, False, result.detach(), partial(_flipped_units, boundaries)))
        return result
