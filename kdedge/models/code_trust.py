"""Permission to execute Python files that build models.

A run folder records the file that built its model, and archives carry both between machines. Such a file is executed
only if the user gave its name in this command, or allowed its content by SHA-256. Modules that it imports from its
folder are executed with it.
"""

import re
from pathlib import Path

from kdedge.models.custom_path import factory_parts, is_factory
from kdedge_runtime.errors import UsageError
from kdedge_runtime.util.files import file_sha256

__all__ = ["allow_content", "allow_typed", "check_allowed"]

_MIN_DIGITS = 12
_typed: set[Path] = set()
_digests: set[str] = set()


def allow_typed(name: str) -> None:
    """Allow the file of a factory given on the command line, such as `nets.py:make_model`; ignore other names."""
    if is_factory(name) and not name.endswith(".py"):
        _typed.add(Path(name.rpartition(":")[0]).resolve())


def allow_content(digest: str) -> None:
    """Allow any file whose SHA-256 begins with these hexadecimal digits, at least 12.

    Raises:
        UsageError: the digits are not a valid prefix.
    """
    if not re.fullmatch(rf"[0-9a-f]{{{_MIN_DIGITS},64}}", digest):
        raise UsageError(
            f"--trust-code {digest} is not a SHA-256. Expected at least its first {_MIN_DIGITS} hexadecimal digits, "
            "as printed in the error message."
        )
    _digests.add(digest)


def check_allowed(name: str) -> None:
    """Raise unless a factory's file may be executed.

    Raises:
        UsageError: the file was neither given on the command line nor allowed by content, or it does not exist.
    """
    path, _ = factory_parts(name)
    if path in _typed:
        return
    sha256 = file_sha256(path)
    if not any(sha256.startswith(digest) for digest in _digests):
        raise UsageError(
            f"{path} builds this model and is named by a run folder, not by this command. Loading the model executes "
            "the file and the modules that it imports from its folder. Read them, and if you trust them, add "
            f"--trust-code {sha256[:_MIN_DIGITS]}."
        )
