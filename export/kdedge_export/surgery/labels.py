"""Class names, from a file of the user's or from what a model file says of itself."""

import ast
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdedge_runtime.errors import UsageError

__all__ = ["labels_of_props", "read_labels"]

_KEYS = ("names", "labels", "classes", "class_names", "kdedge.labels")
"""Of `metadata_props`; `names` is Ultralytics's."""


def read_labels(path: Path) -> tuple[str, ...]:
    """Class names in the order of the logits.

    Args:
        path: a line a class; or JSON: a list, or an object of numbers to names such as ImageNet's
            `{"0": ["n01440764", "tench"], …}`.

    Raises:
        UsageError: there is no such file, or no names in it.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"The labels {path} cannot be read: {error}. Expected a text file, a class a line.") from error
    if path.suffix == ".json":
        try:
            found = _names(json.loads(text))
        except ValueError as error:
            raise UsageError(f"{path} is not JSON: {error}. Expected a list of names.") from error
    else:
        found = tuple(line.strip() for line in text.splitlines() if line.strip())
    if not found:
        raise UsageError(
            f'{path} has no class names. Expected a line a class, a JSON list, or an object such as {{"0": "tench"}}.'
        )
    return found


def labels_of_props(props: Mapping[str, str]) -> tuple[str, ...] | None:
    """Class names among a model's `metadata_props`; None where there are none that can be read."""
    for key in _KEYS:
        for parse in (json.loads, ast.literal_eval):  # a Python literal is read, never evaluated
            try:
                found = _names(parse(props.get(key, "")))
            except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
                continue
            if found:
                return found
    return None


def _names(value: Any) -> tuple[str, ...]:
    """Names in order, from a list or from an object of numbers to names; empty where it is neither."""
    if isinstance(value, dict):
        numbers = {str(index) for index in range(len(value))}
        if {str(key) for key in value} != numbers:
            return ()
        by_number = {int(key): item for key, item in value.items()}
        value = [by_number[index] for index in range(len(by_number))]
    if not isinstance(value, list):
        return ()
    names = [item[-1] if isinstance(item, list | tuple) and item else item for item in value]
    return tuple(names) if all(isinstance(item, str) and item for item in names) else ()
