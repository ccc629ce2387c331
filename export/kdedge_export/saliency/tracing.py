"""Trace of a forward pass: a flat record of tensor operations on one example."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from kdedge_export.errors import HeadNotSupported

__all__ = ["Operation", "Trace", "evaluating", "restoring", "trace"]


@dataclass(frozen=True)
class Operation:
    """Traced operation, such as `addmm`, with its input and output tensors."""

    name: str
    arguments: tuple[Any, ...]
    """Positional arguments, with lists flattened; arguments with their default value may be missing."""
    options: dict[str, Any]
    """Keyword arguments that differ from the default."""
    output: Tensor

    @property
    def inputs(self) -> list[Tensor]:
        """Tensor arguments, in order."""
        return [value for value in self.arguments if isinstance(value, Tensor)]


@dataclass
class Trace:
    """Traced forward pass: its operations in order, and the modules that took or returned each tensor.

    Modules that ran more than once own no tensor, since a hook cannot distinguish the runs.
    """

    logits: Tensor
    operations: list[Operation]
    outputs: dict[int, str] = field(default_factory=dict)
    """Path of the outermost (of several, the last) module that returned a tensor, by `id(tensor)`."""
    inputs: dict[int, str] = field(default_factory=dict)
    """Path of the outermost (of several, the last) module that took a tensor as its first argument, by `id(tensor)`."""

    def producer(self, tensor: Tensor, before: int | None = None) -> tuple[int, Operation] | None:
        """Return the last operation before an index that produced `tensor`, with its index."""
        stop = len(self.operations) if before is None else before
        for index in range(stop - 1, -1, -1):
            if self.operations[index].output is tensor:
                return index, self.operations[index]
        return None


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: list[Operation] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        first = result[0] if isinstance(result, tuple | list) and result else result
        if isinstance(first, Tensor):
            flat = [value for argument in args for value in (argument if isinstance(argument, list) else [argument])]
            name = func._schema.name.removeprefix("aten::")
            self.operations.append(Operation(name, tuple(flat), kwargs or {}, first))
        return result


def trace(model: nn.Module, example: Tensor) -> Trace:
    """Run `model` once in evaluation mode, without gradients, and record its operations.

    Args:
        model: any classifier; its mode is restored.
        example: float `[N, 3, H, W]`.

    Raises:
        HeadNotSupported: the model does not return one `[N, K]` tensor.
    """
    outputs: list[tuple[Tensor, str]] = []  # stored with the tensors, since the id of a freed tensor is reused
    inputs: list[tuple[Tensor, str]] = []
    runs: Counter[str] = Counter()

    def enter(args: tuple[Any, ...], path: str) -> None:
        runs[path] += 1
        if args and isinstance(args[0], Tensor):
            inputs.append((args[0], path))

    def leave(output: Any, path: str) -> None:
        if isinstance(output, Tensor):
            outputs.append((output, path))

    handles = []
    for path, module in model.named_modules():
        if path:
            handles += [
                module.register_forward_pre_hook(lambda _module, args, path=path: enter(args, path)),
                module.register_forward_hook(lambda _module, _args, output, path=path: leave(output, path)),
            ]
    recorder = _Recorder()
    try:
        with evaluating(model), torch.no_grad(), recorder:
            logits = model(example)
    finally:
        for handle in handles:
            handle.remove()
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise HeadNotSupported(
            f"{type(model).__name__} cannot be explained: the model returned {shape}. Expected one tensor of logits "
            "[N, K]."
        )
    return Trace(logits, recorder.operations, _owners(outputs, runs), _owners(inputs, runs))


def _owners(noted: list[tuple[Tensor, str]], runs: Counter[str]) -> dict[int, str]:
    owners: dict[int, str] = {}
    for tensor, path in noted:
        known = owners.get(id(tensor))
        if runs[path] == 1 and (known is None or path.count(".") <= known.count(".")):
            owners[id(tensor)] = path
    return owners


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model in evaluation mode inside the block; every module's mode is restored afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def restoring(model: nn.Module) -> Iterator[None]:
    """Restore every module's mode and every parameter's gradient flag after the block."""
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
        for module, mode in modes:
            module.training = mode
