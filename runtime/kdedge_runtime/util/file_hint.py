"""Advice for error messages about files that do not exist."""

from itertools import islice
from pathlib import Path

__all__ = ["file_hint"]

_COMPARED = 2000
"""Maximum number of names that are compared, because it takes a second for ten times as many."""


def file_hint(path: Path) -> str:
    """Return the most similar path in the folder of a missing file, as a sentence that starts with a space.

    Empty if the path exists, or without a similar name.
    """
    from difflib import get_close_matches

    try:
        names = [] if path.exists() else [item.name for item in islice(path.parent.iterdir(), _COMPARED)]
    except OSError:  # e.g. the folder does not exist, either
        return ""
    near = get_close_matches(path.name, names, n=1)
    return f" Did you mean {path.parent / near[0]}?" if near else ""
