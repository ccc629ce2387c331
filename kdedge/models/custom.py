"""Models from the user's own Python file, named `path/to/file.py:make_model`.

A factory is called as `make_model(num_classes=K)` if it takes this argument, otherwise as `make_model()`. It returns an
`nn.Module` from float `[N, 3, H, W]` to logits `[N, K]`. It only builds the model: trained weights come from a separate
file. A module whose input differs from ImageNet's declares it in `pretrained_cfg`, like timm's modules.

Loading a factory executes the file, which needs permission: see `kdedge.models.code_trust`.
"""

import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from kdedge.models.code_trust import check_allowed
from kdedge.models.custom_path import factory_parts
from kdedge_export.saliency.tracing import evaluating
from kdedge_runtime.errors import UsageError
from kdedge_runtime.util.files import file_sha256

__all__ = ["code_sha256", "count_classes", "factory_name", "make", "check_unchanged"]

CLASSES = "num_classes"
"""Name of the argument for the number of classes, as in torchvision and timm."""


def factory_name(name: str) -> str:
    """Return the absolute name of a factory: `/home/me/nets.py:make_model`.

    Raises:
        UsageError: the file or function does not exist, or the file is not trusted or cannot be loaded.
    """
    path, function = factory_parts(name)
    _factory(name)
    return f"{path}:{function}"


def code_sha256(name: str) -> str:
    """Return the hash of a factory's file, without the files it imports."""
    return file_sha256(factory_parts(name)[0])


def check_unchanged(name: str, sha256: str) -> None:
    """Raise unless a factory's file has this hash.

    Raises:
        UsageError: the hash differs.
    """
    found = code_sha256(name)
    if found != sha256:
        raise UsageError(
            f"{factory_parts(name)[0]} has changed since the model was trained: its sha256 is {found[:12]}…, expected "
            f"{sha256[:12]}…. Restore the file, or train the model again."
        )


def make(name: str, classes: int | None = None) -> nn.Module:
    """Call a factory.

    Args:
        name: name of the factory.
        classes: number of classes to pass, if it takes one; None uses the factory's default.

    Raises:
        UsageError: the factory is not trusted, fails, does not return a module, or has no default.
    """
    path, function = factory_parts(name)
    factory = _factory(name)
    parameters = inspect.signature(factory).parameters
    arguments = {}
    if CLASSES in parameters or any(item.kind is item.VAR_KEYWORD for item in parameters.values()):
        if classes is not None:
            arguments[CLASSES] = classes
        elif CLASSES in parameters and parameters[CLASSES].default is inspect.Parameter.empty:
            raise UsageError(
                f"{name} requires the number of classes, which no weights provide. "
                "Expected weights trained with this model: --weights FILE."
            )
    with _importable(path.parent):
        try:
            model = factory(**arguments)
        except Exception as error:  # user code
            called = ", ".join(f"{key}={value}" for key, value in arguments.items())
            raise UsageError(f"{name} failed when called as {function}({called}): {_summary(error)}") from error
    if not isinstance(model, nn.Module):
        raise UsageError(f"{name} returned {type(model).__name__}. Expected a torch.nn.Module that returns logits.")
    return model


def count_classes(name: str, model: nn.Module, example: Tensor) -> int:
    """Return the number of logits of a factory's model, determined by running it once.

    Args:
        name: name of the factory.
        model: its model.
        example: one input `[1, C, H, W]`.

    Raises:
        UsageError: the model does not accept this input, or does not return logits `[N, K]`.
    """
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    try:
        with evaluating(model), torch.no_grad():
            logits = model(example.to(device))
    except Exception as error:  # user code
        raise UsageError(
            f"The model of {name} does not accept an input of shape {tuple(example.shape)}: {_summary(error)}. Choose "
            'another size, or set model.pretrained_cfg = {"input_size": (3, HEIGHT, WIDTH)} in the factory.'
        ) from error
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        found = f"a tensor {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        raise UsageError(f"The model of {name} returns {found} for one image. Expected logits [1, K].")
    return logits.shape[1]


def _factory(name: str) -> Callable[..., Any]:
    check_allowed(name)
    path, function = factory_parts(name)
    module = _module(path)
    factory = getattr(module, function, None)
    if not callable(factory):
        own = [key for key, value in vars(module).items() if inspect.isfunction(value) and not key.startswith("_")]
        hint = f"It has {', '.join(own[:6])}." if own else "It has no functions."
        raise UsageError(f"{path} has no function {function}. {hint}")
    found: Callable[..., Any] = factory
    return found


class _SourceLoader(SourceFileLoader):
    """Compiles the source of a file, never its cached bytecode, which may differ from the file."""

    def __init__(self, name: str, path: Path, content: bytes) -> None:
        super().__init__(name, str(path))
        self._content = content

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self._content, self.path)


def _module(path: Path) -> ModuleType:
    """Load a file once under a unique module name; compilers find modules by name."""
    content = path.read_bytes()
    name = "kdedge_factory_" + hashlib.sha256(bytes(path) + content).hexdigest()[:16]
    if name in sys.modules:
        return sys.modules[name]
    loader = _SourceLoader(name, path, content)
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    assert spec is not None, "a loader is given"
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    with _importable(path.parent):
        try:
            loader.exec_module(module)
        except BaseException as error:  # includes SystemExit: a script without a main guard
            del sys.modules[name]
            if isinstance(error, KeyboardInterrupt):
                raise
            raise UsageError(f"{path} cannot be loaded: {_summary(error)}") from error
    return module


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Let imports find the folder's modules first inside the block, even if one of that name is already loaded."""
    neighbors = {path.stem for path in folder.glob("*.py")} | {
        path.parent.name for path in folder.glob("*/__init__.py")
    }
    hidden = {
        name: module
        for name, module in sys.modules.items()
        if (top := name.partition(".")[0]) in neighbors
        and top not in sys.stdlib_module_names
        and not Path(getattr(sys.modules.get(top), "__file__", None) or folder).is_relative_to(folder)
    }
    for name in hidden:
        del sys.modules[name]
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        sys.modules.update(hidden)


def _summary(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".rstrip(".: ")
