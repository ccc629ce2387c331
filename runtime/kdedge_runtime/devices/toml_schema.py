"""Strict conversion of TOML tables to frozen dataclasses."""

import difflib
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

__all__ = ["build"]

Settings = TypeVar("Settings")


def build(kind: type[Settings], table: Mapping[str, Any], path: str = "") -> Settings:
    """Create a dataclass from a table. Nested dataclasses are nested tables.

    Fields may be bool, int, float, str, a `Literal`, a dataclass, a tuple of one of these, or optional.

    Args:
        kind: the dataclass.
        table: field values; fields with a default may be omitted.
        path: prefix of dotted keys in error messages.

    Raises:
        ValueError: lists all faults of the table, and the closest match for unknown keys.
    """
    hints, known = get_type_hints(kind), {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    faults = [_unknown(path + key, difflib.get_close_matches(key, known, n=1)) for key in table if key not in known]
    faults += [
        f"{path}{name} is missing"
        for name, field in known.items()
        if name not in table and field.default is MISSING and field.default_factory is MISSING
    ]
    if faults:
        raise ValueError(", ".join(faults))
    return kind(**{key: _value(hints[key], value, path + key) for key, value in table.items()})


def _unknown(key: str, near: list[str]) -> str:
    return f"{key} is unknown" + (f" (did you mean {near[0]}?)" if near else "")


def _value(kind: Any, value: Any, path: str) -> Any:
    origin, options = get_origin(kind), get_args(kind)
    if is_dataclass(kind) and isinstance(value, dict):
        return build(kind, value, f"{path}.")  # type: ignore[arg-type]
    if origin is UnionType:
        (kind,) = (option for option in options if option is not NoneType)
        return _value(kind, value, path)
    if origin is tuple and isinstance(value, list):
        return tuple(_value(options[0], item, path) for item in value)
    if origin is Literal:
        if value in options:
            return value
        raise ValueError(f"{path} is {value!r}, expected one of {', '.join(map(repr, options))}")
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is kind:  # not isinstance, because bool is a subclass of int
        return value
    expected = "a table" if is_dataclass(kind) else "a list" if origin is tuple else kind.__name__
    raise ValueError(f"{path} is {value!r}, expected {expected}")
