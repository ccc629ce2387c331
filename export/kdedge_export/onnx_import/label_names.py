"""Class names, from a user's file or from a model file's metadata."""

import ast
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdedge_runtime.errors import UsageError

__all__ = ["labels_of_props", "read_labels"]

_KEYS = ("names", "labels", "classes", "class_names", "kdedge.labels", "character")
"""Keys of `metadata_props` that hold class names: Ultralytics's `names`, RapidOCR's `character` with one per line."""
_NUMBERED = re.compile(r"(\d+)\s*[:,\t]\s*(.*\S)")
"""Pattern of a line such as `0: tench`."""


def read_labels(path: Path) -> tuple[str, ...]:
    """Read class names in the order of the logits.

    Args:
        path: one class per line, each name alone or after its number as in `0: tench`; or JSON: a list, an object of
            numbers to names such as ImageNet's `{"0": ["n01440764", "tench"], …}`, or one of names to numbers such as
            Keras's `class_indices`, `{"cats": 0, "dogs": 1}`.

    Raises:
        UsageError: the file does not exist or contains no names.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"The labels {path} cannot be read: {error}. Expected a text file with one class per line."
        ) from error
    if path.suffix == ".json":
        try:
            found = _names(json.loads(text))
        except ValueError as error:
            raise UsageError(f"{path} is not JSON: {error}. Expected a list of names.") from error
    else:
        found = _lines(text)
    if not found:
        raise UsageError(
            f'{path} has no class names. Expected one class per line, a JSON list, or an object such as {{"0": '
            '"tench"}.'
        )
    return found


def labels_of_props(props: Mapping[str, str]) -> tuple[str, ...] | None:
    """Return the class names in a model's `metadata_props`, or None."""
    for key in _KEYS:
        for parse in (json.loads, ast.literal_eval):  # a Python literal is parsed, never evaluated
            try:
                found = _names(parse(props.get(key, "")))
            except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
                continue
            if found:
                return found
    return _lines(props.get("character", "")) or None


def _names(value: Any) -> tuple[str, ...]:
    """Return names in order, from a list or an object of numbers and names; empty for anything else."""
    if isinstance(value, dict) and {type(item) for item in value.values()} == {int}:
        value = {number: name for name, number in value.items()}
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


def _lines(text: str) -> tuple[str, ...]:
    """Split names by line; if every line starts with a number and these run from 0, sort by number."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    numbered = [match for line in lines if (match := _NUMBERED.fullmatch(line)) is not None]
    by_number = {int(match[1]): match[2] for match in numbered}
    if lines and len(numbered) == len(lines) and by_number.keys() == {*range(len(lines))}:
        return tuple(by_number[number] for number in range(len(lines)))
    return tuple(lines)
