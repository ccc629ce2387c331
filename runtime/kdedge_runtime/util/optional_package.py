"""Imports of optional packages, with an error that names what to install."""

from collections.abc import Iterator
from contextlib import contextmanager

from kdedge_runtime.errors import MissingDependency

__all__ = ["needs_package"]


@contextmanager
def needs_package(purpose: str, package: str, install: str) -> Iterator[None]:
    """Convert a failed import in the block to an error with a remedy.

    Args:
        purpose: feature or file that needs the package, as the subject of a sentence in the singular.
        package: name of the package for people.
        install: command that installs it, with alternatives.

    Raises:
        MissingDependency: the block raised an ImportError, or an OSError, as of a shared library that is missing.
    """
    try:
        yield
    except (ImportError, OSError) as error:
        raise MissingDependency(
            f"{purpose} needs {package}, which cannot be imported ({error}). Install it: {install}"
        ) from error
