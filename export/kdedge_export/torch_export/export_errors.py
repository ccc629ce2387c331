"""What PyTorch's own exporter cannot do, told as an error of this project: where in the model, why, and what to do."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

from kdedge_export.errors import GraphNotSupported
from kdedge_runtime.errors import KdedgeError

__all__ = ["told_refusals"]

_OF_VALUES = (GuardOnDataDependentSymNode, DataDependentOutputException, DynamicOutputShapeException)
"""Python code or a shape that depends on what is in the picture."""
_UNKNOWN_OPERATOR = re.compile(r"No ONNX function found for <OpOverload\(op='([\w.]+)'")


@contextmanager
def told_refusals(model: nn.Module) -> Iterator[None]:
    """Inside the block, whatever PyTorch raises over `model` becomes a `GraphNotSupported`.

    PyTorch's exporter has no type of errors of its own for what a network may not do, so all are taken; errors of this
    project and of the disk pass as they are.
    """
    try:
        yield
    except (KdedgeError, OSError):
        raise
    except Exception as error:
        raise GraphNotSupported(_told(model, error)) from error


def _told(model: nn.Module, error: Exception) -> str:
    causes = _causes(error)
    reason = next(iter(str(causes[0]).strip().splitlines()), "") or type(causes[0]).__name__
    place = next((found for cause in causes if (found := _place(model, cause)) is not None), "")
    start = f"{type(model).__name__} cannot be exported{place}: "
    if any(isinstance(cause, _OF_VALUES) for cause in causes):
        return (
            f"{start}what it does next depends on values that it computes from the picture ({reason}). "
            "A graph does the same for every picture: put torch.where in the place of if, and leave out while, "
            ".item(), .tolist(), float(tensor) and selecting by a mask."
        )
    if (operator := _UNKNOWN_OPERATOR.search(reason)) is not None:
        return (
            f"{start}PyTorch has no ONNX for the operation {operator[1]}. Put another in its place in the model; if it "
            "is in the map only, name another --method, or export without a map: --method none."
        )
    return (
        f"{start}{reason.rstrip('.')}. Write this part of the model in plain tensor operations; if the map alone is "
        "the reason, --method none exports without one. An .onnx file that another tool made of the model takes a map "
        "too: kdedge export --from-onnx MODEL.onnx."
    )


def _causes(error: BaseException) -> list[BaseException]:
    """The error and what raised it, the first cause first."""
    found: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in found:
        found.insert(0, current)
        current = current.__cause__
    return found


def _place(model: nn.Module, error: BaseException) -> str | None:
    """The innermost of the model's modules that the error went through, and the line; None where it went through none.

    A module's own code is preferred to that of the layers of PyTorch which it calls: that is where it can be changed.
    """
    paths = {id(module): path for path, module in model.named_modules()}
    found, trace = None, error.__traceback__
    while trace is not None:
        frame, code = trace.tb_frame, trace.tb_frame.f_code
        module = frame.f_locals.get(code.co_varnames[0]) if code.co_argcount else None
        own = getattr(getattr(type(module), code.co_name, None), "__code__", None) is code
        if isinstance(module, nn.Module) and own and id(module) in paths and not _is_torchs(code.co_filename):
            path = paths[id(module)]
            name = f"{path} ({type(module).__name__})" if path else type(module).__name__
            found = f", at {name}, {Path(code.co_filename).name} line {trace.tb_lineno}"
        trace = trace.tb_next
    return found


def _is_torchs(file: str) -> bool:
    return Path(nn.__file__).parent.parent in Path(file).parents
