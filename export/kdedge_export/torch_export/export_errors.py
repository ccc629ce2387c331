"""Translation of PyTorch export errors into errors with location, cause and remedy."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

from kdedge_export.errors import GraphNotSupported
from kdedge_runtime.errors import KdedgeError

__all__ = ["translate_export_errors"]

_OF_VALUES = (GuardOnDataDependentSymNode, DataDependentOutputException, DynamicOutputShapeException)
"""Errors for Python code or shapes that depend on the values of a sample."""
_UNKNOWN_OPERATOR = re.compile(r"No ONNX function found for <OpOverload\(op='([\w.]+)'")


@contextmanager
def translate_export_errors(model: nn.Module) -> Iterator[None]:
    """Convert errors raised by PyTorch for `model` inside the block to `GraphNotSupported`.

    PyTorch's exporter has no common error type, so all are converted. Errors of this package and of the file system are
    passed through.
    """
    try:
        yield
    except (KdedgeError, OSError):
        raise
    except Exception as error:
        raise GraphNotSupported(_description(model, error)) from error


def _description(model: nn.Module, error: Exception) -> str:
    causes = _causes(error)
    reason = next(iter(str(causes[0]).strip().splitlines()), "") or type(causes[0]).__name__
    place = next((found for cause in causes if (found := _place(model, cause)) is not None), "")
    start = f"{type(model).__name__} cannot be exported{place}: "
    if any(isinstance(cause, _OF_VALUES) for cause in causes):
        return (
            f"{start}its next step depends on values computed from the sample ({reason}). A graph is the same for "
            "every sample: use torch.where instead of if, and avoid while, .item(), .tolist(), float(tensor) and "
            "boolean masks."
        )
    if (operator := _UNKNOWN_OPERATOR.search(reason)) is not None:
        return (
            f"{start}PyTorch has no ONNX translation for the operation {operator[1]}. Replace it in the model. If "
            "only the map needs it, choose another --method, or export without a map: --method none."
        )
    return (
        f"{start}{reason.rstrip('.')}. Write this part of the model in plain tensor operations. If only the map needs "
        "it, --method none exports without one. An .onnx file written by another tool can be explained as well: "
        "kdedge export MODEL.onnx."
    )


def _causes(error: BaseException) -> list[BaseException]:
    """Return the error and its causes, root cause first."""
    found: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in found:
        found.insert(0, current)
        current = current.__cause__
    return found


def _place(model: nn.Module, error: BaseException) -> str | None:
    """Return the innermost of the model's modules in the traceback and the line, or None.

    A module's own code is preferred to PyTorch layers that it calls, since it can be changed.
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
