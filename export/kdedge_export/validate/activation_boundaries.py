"""Functions with kinks, as PyTorch models call them: what goes in is watched, and single values are taken across."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

__all__ = ["Call", "KinkedCalls", "Unit"]


@dataclass(frozen=True)
class Unit:
    """A value that goes into a function with a kink, and what takes it to the kink's other side."""

    call: int
    """Which of the functions with kinks of a forward pass, counted from 0."""
    index: int
    """Of the value in its flattened tensor."""
    push: float


@dataclass(frozen=True)
class Call:
    """One call of a function with kinks."""

    number: int
    x: Tensor
    """What goes in."""
    pools: bool
    """Whether the function is max pooling; the others work on each value."""
    shown: Tensor
    """What tells on which side a value lies: the function's results, or what goes into a pool."""
    turned: Callable[[Tensor, Tensor, Tensor], list[tuple[int, float]]]
    """See `_turned` and `_overtaken`: indices and pushes of values near a kink that another run has on its other side.
    """


@dataclass(frozen=True)
class _Kink:
    at: float | Tensor
    """A tensor where each value has its own."""
    value: float | Tensor
    """Of the function there."""
    flat: int
    """Whether the function has that very value below (-1) or above (1) as well, or goes on to both sides (0)."""


_ZERO = _Kink(0, 0, -1)
_INPLACE: dict[Any, int] = {F.relu: 0, F.relu6: 0, F.hardtanh: 2, F.hardswish: 0, F.hardsigmoid: 0, F.leaky_relu: 1}
"""Functions with an `inplace`, and its place behind the input."""


def _turned(kinks: Sequence[_Kink], x: Tensor, results: Tensor, reach: Tensor) -> list[tuple[int, float]]:
    """Values on different sides of a kink in two runs.

    Args:
        kinks: of the function.
        x: what went into it in one run.
        results: what came out in the other one, of the same shape: the value that it is flat at only from there.
        reach: how far from the kink each value may lie, of the shape of `x`.
    """
    found: list[tuple[int, float]] = []
    for kink in kinks:
        gaps = (x - kink.at).flatten()
        above = gaps >= 0 if kink.flat > 0 else gaps > 0
        at_value = (results == kink.value).flatten()
        theirs = {-1: ~at_value, 0: (results > kink.value).flatten(), 1: at_value}[kink.flat]
        near = gaps.abs() <= reach.flatten()
        for index in torch.nonzero(near & (above != theirs)).flatten().tolist():
            found.append((index, -2 * float(gaps[index]) or _step(x.flatten()[index], up=not above[index])))
    return found


def _overtaken(
    args: tuple[Any, ...], options: dict[str, Any], x: Tensor, theirs: Tensor, reach: Tensor
) -> list[tuple[int, float]]:
    """The second largest values of windows of max pooling that are the larger ones of the two in another run.

    Args:
        args: positional arguments of the function behind its input.
        options: its other arguments.
        x: what went into it in one run.
        theirs: what went in in the other one.
        reach: how much smaller the second may be, as much as the larger of both values' reach; of the shape of `x`.
    """
    places = torch.arange(x.numel(), device=x.device, dtype=torch.float64).reshape(x.shape)
    order = _windows(places, -1.0, *args, **options).long()
    values = _windows(x.double(), float("-inf"), *args, **options)
    (first, second), ranked = values.topk(2, dim=1).values.T, values.topk(2, dim=1).indices
    best, next_best = order.gather(1, ranked).T
    others, flat = theirs.flatten(), reach.flatten()
    # Outside the picture there is no second; its index of -1 only has to be one that can be looked up.
    near = (next_best >= 0) & (first - second <= torch.maximum(flat[best], flat[next_best]))
    near[near.clone()] = others[next_best[near]] > others[best[near]]
    gaps = (first - second)[near].tolist()
    return [
        (index, 2 * gap or _step(x.flatten()[index], up=True))
        for index, gap in zip(next_best[near].tolist(), gaps, strict=True)
    ]


def _step(value: Tensor, *, up: bool) -> float:
    """The difference to the next float32 number above or below."""
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
    """The values under each window of max pooling, `[windows, values]`, with `outside` for the border."""
    size = (kernel_size, kernel_size) if isinstance(kernel_size, int) else tuple(kernel_size)
    steps = (stride or size,) * 2 if isinstance(stride or size, int) else tuple(stride or size)
    top, left = (padding, padding) if isinstance(padding, int) else tuple(padding)
    # A window over the end that rounding up adds finds only the border there.
    bottom, right = (top + steps[0] - 1, left + steps[1] - 1) if ceil_mode else (top, left)
    padded = F.pad(x, (left, right, top, bottom), value=outside)
    return F.unfold(padded.flatten(0, 1)[:, None], size, dilation, 0, steps).transpose(1, 2).flatten(0, 1)


def _between(least: float | Tensor | None = None, most: float | Tensor | None = None) -> list[_Kink]:
    kinks = [] if least is None else [_Kink(least, least, -1)]
    return kinks if most is None else [*kinks, _Kink(most, most, 1)]


def _kinks(func: Any, args: tuple[Any, ...], options: dict[str, Any]) -> list[_Kink] | None:
    """Of a function of each value; None for any other."""
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
    """Whether a function changes its first argument, given what else it is called with."""
    place = _INPLACE.get(func)
    if place is None:
        return bool(func.__name__.endswith("_"))
    return bool(options.get("inplace", len(args) > place and args[place]))


class KinkedCalls(TorchFunctionMode):
    """Inside the block, calls of functions with kinks are watched, and some of their values moved."""

    def __init__(self, watch: Callable[[Call], None] | None = None, pushed: Sequence[Unit] = ()) -> None:
        """Prepare; a new one for every forward pass.

        Args:
            watch: told of each call.
            pushed: what to move.
        """
        super().__init__()
        self._calls, self._watch, self._pushed = 0, watch, pushed

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call `func`, after what goes into it was moved."""
        options = dict(kwargs or {})
        if not (args and isinstance(args[0], Tensor) and args[0].is_floating_point()):
            return func(*args, **options)
        x, *rest = args
        kinks = _kinks(func, tuple(rest), options)
        if kinks is None and func is not F.max_pool2d:
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
        if kinks is None:
            self._watch(Call(number, before, True, before, partial(_overtaken, tuple(rest), options)))
        else:
            self._watch(Call(number, before, False, result.detach(), partial(_turned, kinks)))
        return result
