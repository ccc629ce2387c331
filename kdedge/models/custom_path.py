"""Names of model factories: `path/to/file.py:make_model`. This module does not execute the file."""

import re
from pathlib import Path

from kdedge_runtime.errors import UsageError

__all__ = ["factory_parts", "is_factory"]


def is_factory(name: str) -> bool:
    """Return True if a model name refers to a factory in a Python file."""
    return re.search(r"\.py(:[^:]*)?$", name) is not None


def factory_parts(name: str) -> tuple[Path, str]:
    """Return the absolute path of a factory's file and the name of the function.

    Raises:
        UsageError: the function is missing from the name, or the file does not exist.
    """
    file, _, function = name.rpartition(":") if not name.endswith(".py") else (name, "", "")
    if not function.isidentifier():
        raise UsageError(f"{name} has no function name. Expected FILE.py:FUNCTION, such as {file}:make_model.")
    path = Path(file).resolve()
    if not path.is_file():
        raise UsageError(f"There is no file {path}. Expected a Python file with a function {function}.")
    return path, function
