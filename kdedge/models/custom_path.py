"""What a factory of networks is called: `path/to/file.py:make_model`. Nothing here runs the file."""

import re
from pathlib import Path

from kdedge_runtime.errors import UsageError

__all__ = ["factory_parts", "is_factory"]


def is_factory(name: str) -> bool:
    """Whether a model's name is meant as that of a factory in a Python file."""
    return re.search(r"\.py(:[^:]*)?$", name) is not None


def factory_parts(name: str) -> tuple[Path, str]:
    """The absolute path of a factory's file, and the function's name.

    Raises:
        UsageError: no function is named, or there is no such file.
    """
    file, _, function = name.rpartition(":") if not name.endswith(".py") else (name, "", "")
    if not function.isidentifier():
        raise UsageError(f"{name} names no function. Expected FILE.py:FUNCTION, such as {file}:make_model.")
    path = Path(file).resolve()
    if not path.is_file():
        raise UsageError(f"There is no file {path}. Expected a Python file with a function {function}.")
    return path, function
