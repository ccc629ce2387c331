"""Permission to run the Python files that build networks.

A run folder records the file that built its network, and archives carry both from machine to machine. Such a file runs
only if the user typed its name in this command, or allowed its content by its SHA-256. Modules in its folder that
it imports run with it.
"""

import re
from pathlib import Path

from kdedge.models.custom_path import factory_parts, is_factory
from kdedge_runtime.errors import UsageError
from kdedge_runtime.util.files import file_sha256

__all__ = ["allow_content", "allow_typed", "require_allowed"]

_FEWEST_DIGITS = 12
_typed: set[Path] = set()
_digests: set[str] = set()


def allow_typed(name: str) -> None:
    """Allow the file of a factory that the user typed, such as `nets.py:make_model`; other names are ignored."""
    if is_factory(name) and not name.endswith(".py"):
        _typed.add(Path(name.rpartition(":")[0]).resolve())


def allow_content(digest: str) -> None:
    """Allow any file whose SHA-256 begins with these hexadecimal digits, 12 at least.

    Raises:
        UsageError: it is no such beginning.
    """
    if not re.fullmatch(rf"[0-9a-f]{{{_FEWEST_DIGITS},64}}", digest):
        raise UsageError(
            f"--trust-code {digest} is no SHA-256. Expected its first {_FEWEST_DIGITS} hexadecimal digits or more, as "
            "the refusal prints them."
        )
    _digests.add(digest)


def require_allowed(name: str) -> None:
    """Raise unless a factory's file may run.

    Raises:
        UsageError: the user neither typed it nor allowed its content, or there is no such file.
    """
    path, _ = factory_parts(name)
    if path in _typed:
        return
    sha256 = file_sha256(path)
    if not any(sha256.startswith(digest) for digest in _digests):
        raise UsageError(
            f"{path} builds this network, and a run folder names it, not this command. Loading the network runs that "
            f"file and the modules in its folder that it imports. Read them, and if you trust them, add --trust-code "
            f"{sha256[:_FEWEST_DIGITS]}."
        )
