"""Advice for error messages about class names that do not exist."""

import difflib
from collections.abc import Sequence

__all__ = ["class_hint"]

_SHOWN = 12


def class_hint(name: str, labels: Sequence[str]) -> str:
    """Return similar class names and a list of the classes, as sentences that start with a space."""
    near = difflib.get_close_matches(name, labels, n=3)
    hint = f" Did you mean {', '.join(near)}?" if near else ""
    shown = ", ".join(labels[:_SHOWN]) + (", …" if len(labels) > _SHOWN else "")
    return f"{hint} Its {len(labels)} classes are: {shown}"
