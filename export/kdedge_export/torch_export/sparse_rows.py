"""Sparse-row evaluation: compute only the nonzero rows of a gradient.

A transformer classifies one of its tokens. After the last attention the gradient of all other tokens is zero, but
autograd computes with the zeros. In a ViT-tiny this costs a tenth of the forward pass. Most derivative operations keep
rows separate, so the nonzero rows can be processed alone until an attention mixes them.
"""

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor, fx

__all__ = ["KEEP_ROWS", "RowSparseInterpreter"]

aten = torch.ops.aten


@dataclass(frozen=True)
class _Rows:
    """Tensor that is zero except for some rows."""

    some: Tensor
    """Nonzero rows, in the tensor's layout."""
    axis: int
    """Axis of the rows, counted from the last one: negative, so that it is valid after broadcasting."""
    start: int
    """Index of the first nonzero row."""
    of: int
    """Total number of rows of the tensor."""
    flat: bool = False
    """True if the tensor is a matrix `[a·b, c]` where `some` has `[a, b, c]`, with rows `a` or `b`."""

    @property
    def end(self) -> int:
        """Index after the last nonzero row."""
        return self.start + self.some.shape[self.axis]

    @property
    def others(self) -> list[Any]:
        """Sizes of the other axes."""
        sizes = list(self.some.shape)
        del sizes[self.axis]
        return sizes

    def whole(self) -> Tensor:
        """Return the full tensor, with its zeros."""
        tensor = self.within(0, self.of)
        return tensor.flatten(0, 1) if self.flat else tensor

    def within(self, start: int, end: int) -> Tensor:
        """Return the rows from `start` to `end`, which include all nonzero rows."""
        margins = [self.start - start, end - self.end]
        padded: Tensor = aten.constant_pad_nd(self.some, [0, 0] * (-self.axis - 1) + margins)
        return padded if any(margins) else self.some

    def same(self, tensor: Tensor, axis: int) -> Tensor:
        """Return the same rows of another tensor."""
        return tensor.narrow(axis, self.start, self.some.shape[self.axis])

    def meets(self, factor: Any) -> Any:
        """Return the part of a factor that multiplies these rows: the same rows if the factor has all of them."""
        has_rows = isinstance(factor, Tensor) and factor.ndim >= -self.axis and factor.shape[self.axis] == self.of
        return self.same(factor, self.axis) if has_rows else factor


class RowSparseInterpreter(fx.Interpreter):
    """Interpret a graph of ATen operations; tracing it gives a graph that computes only the nonzero rows.

    Operations without a rule receive the full tensor. Operations in `KEEP_ROWS` must not be decomposed before.
    """

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        """Apply a row rule if there is one; see `fx.Interpreter`."""
        if target is operator.getitem:
            return args[0][args[1]]
        if target in _STARTS or (target in _RULES and any(isinstance(value, _Rows) for value in args)):
            found = _RULES[target](target, *args, **kwargs)
            if found is not None:
                return found
        return super().call_function(target, _whole(args), _whole(kwargs))

    def output(self, target: Any, args: Any, kwargs: Any) -> Any:
        """Return the full tensors; see `fx.Interpreter`."""
        return super().output(target, _whole(args), kwargs)


def _whole(value: Any) -> Any:
    return fx.node.map_aggregate(value, lambda item: item.whole() if isinstance(item, _Rows) else item)


_Operation: TypeAlias = Callable[..., Tensor]
_Found: TypeAlias = _Rows | Tensor | tuple[_Rows, None, None] | None
"""Result of a rule; None if it needs the full tensor."""


def _select(_target: _Operation, gradient: Any, sizes: Sequence[int], axis: int, index: int) -> _Found:
    return _few(_whole(gradient).unsqueeze(axis), sizes, axis, index % sizes[axis])


def _slice(
    _target: _Operation, gradient: Any, sizes: Sequence[int], axis: int, start: int, end: int, step: int
) -> _Found:
    if (start, step) == (0, 1) and end >= 2**62:
        all_rows: _Rows | Tensor = gradient
        return all_rows
    return None if step != 1 else _few(_whole(gradient), sizes, axis, start % sizes[axis])


def _few(rows: Tensor, sizes: Sequence[int], axis: int, start: int) -> _Rows | None:
    of = sizes[axis]
    few = isinstance(of, int) and 2 * rows.shape[axis] <= of
    return _Rows(rows, axis % len(sizes) - len(sizes), start, of) if few else None


def _identity(target: _Operation, x: _Rows, **options: Any) -> _Found:
    return replace(x, some=target(x.some, **options))


def _product(target: _Operation, a: Any, b: Any) -> _Found:
    """Multiply; the result is zero wherever a factor is."""
    if isinstance(a, _Rows) and not isinstance(b, _Rows) and not a.flat:
        return replace(a, some=target(a.some, a.meets(b)))
    if isinstance(b, _Rows) and not isinstance(a, _Rows) and target is aten.mul.Tensor:
        return _product(target, b, a)
    return None


def _slope(target: _Operation, gradient: _Rows, x: Any, *settings: Any, **options: Any) -> _Found:
    """Differentiate an elementwise function at `x`."""
    if isinstance(x, _Rows) or gradient.flat:
        return None
    return replace(gradient, some=target(gradient.some, gradient.meets(x), *settings, **options))


def _softmax(target: _Operation, gradient: _Rows, output: Any, axis: int, kind: Any) -> _Found:
    mixes = isinstance(gradient, _Rows) and gradient.axis in (axis, axis - gradient.some.ndim)
    return None if mixes else _slope(target, gradient, output, axis, kind)


def _layer_norm(
    target: _Operation, gradient: Any, x: Any, shape: Sequence[int], mean: Any, rstd: Any, *weights: Any
) -> _Found:
    if isinstance(x, _Rows) or gradient.flat or -gradient.axis <= len(shape):
        return None
    x, mean, rstd = (gradient.same(part, gradient.axis) for part in (x, mean, rstd))
    found, *_ = target(gradient.some, x, shape, mean, rstd, *weights)
    return replace(gradient, some=found), None, None


def _sum(target: _Operation, a: Any, b: Any) -> _Found:
    if not (isinstance(a, _Rows) and isinstance(b, _Rows)) or a.flat or b.flat or (a.axis, a.of) != (b.axis, b.of):
        return None
    first, last = (a, b) if a.start <= b.start else (b, a)
    if target is aten.add.Tensor and first.end == last.start and first.others == last.others:
        return replace(first, some=torch.cat([first.some, last.some], a.axis))
    start, end = first.start, max(a.end, b.end)
    return replace(a, some=target(a.within(start, end), b.within(start, end)), start=start)


def _transpose(target: _Operation, x: _Rows, first: int, second: int) -> _Found:
    axes = list(range(-x.some.ndim, 0))
    axes[first], axes[second] = axes[second], axes[first]
    return _permute(aten.permute.default, x, axes)


def _permute(target: _Operation, x: _Rows, axes: Sequence[int]) -> _Found:
    if x.flat:
        return None
    n = len(axes)
    place = [axis % n for axis in axes].index(x.axis % n)
    return replace(x, some=target(x.some, axes), axis=place - n)


def _view(_target: _Operation, x: _Rows, sizes: Sequence[Any]) -> _Found:
    before = list(x.some.shape)
    before[x.axis] = x.of
    behind = math.prod(before[x.axis :][1:])
    for place, size in enumerate(sizes):
        if isinstance(size, int) and size == x.of and math.prod(sizes[place + 1 :]) == behind:
            few = [*sizes[:place], x.some.shape[x.axis], *sizes[place + 1 :]]
            return replace(x, some=x.some.reshape(few), axis=place - len(sizes), flat=False)
    becomes_flat = len(before) == 3 and len(sizes) == 2 and x.axis < -1 and sizes[1] == before[2]
    return replace(x, flat=True) if becomes_flat else None


def _matrix_product(target: _Operation, x: Any, weight: Any) -> _Found:
    if not isinstance(x, _Rows) or not x.flat:
        return None
    return replace(x, some=target(x.some.flatten(0, 1), weight).reshape(*x.some.shape[:2], -1))


def _batch_product(target: _Operation, a: Any, b: Any) -> _Found:
    """Multiply batches; rows of the left and columns of the right factor stay separate, unlike the contracted axis."""
    match a, b:
        case _Rows(axis=-2), Tensor():
            return replace(a, some=target(a.some, b))
        case _Rows(axis=-1), Tensor():
            return target(a.some, a.same(b, -2))
        case Tensor(), _Rows(axis=-1):
            return replace(b, some=target(a, b.some))
        case Tensor(), _Rows(axis=-2):
            return target(b.same(a, -1), b.some)
        case _:
            return None


_Rule: TypeAlias = Callable[..., _Found]
"""Function of an operation and its arguments."""
_STARTS: dict[Any, _Rule] = {aten.select_backward.default: _select, aten.slice_backward.default: _slice}
_SLOPES: dict[Any, _Rule] = dict.fromkeys(
    (
        aten.gelu_backward.default,
        aten.hardswish_backward.default,
        aten.silu_backward.default,
        aten.tanh_backward.default,
        aten.threshold_backward.default,
    ),
    _slope,
)
_BACKWARD = {
    **_STARTS,
    **_SLOPES,
    aten._softmax_backward_data.default: _softmax,
    aten.native_layer_norm_backward.default: _layer_norm,
}
KEEP_ROWS = frozenset(_BACKWARD)
"""Operations with both a decomposition and a row rule."""
_RULES = _BACKWARD | {
    aten.clone.default: _identity,
    aten.detach.default: _identity,
    aten.mul.Tensor: _product,
    aten.div.Tensor: _product,
    aten.add.Tensor: _sum,
    aten.sub.Tensor: _sum,
    aten.permute.default: _permute,
    aten.transpose.int: _transpose,
    aten.view.default: _view,
    aten._unsafe_view.default: _view,
    aten.mm.default: _matrix_product,
    aten.bmm.default: _batch_product,
}
