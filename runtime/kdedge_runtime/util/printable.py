"""Escape control characters in untrusted text: labels, node names, file names and feedback."""

import json
import re

__all__ = ["printable", "printable_json", "printable_lines"]

_CONTROL = "\\x00-\\x1f\\x7f-\\x9f\\u2028-\\u202e\\u2066-\\u2069\\ud800-\\udfff"
"""Control characters: C0, DEL and C1 (terminal control), line separators, bidirectional marks and surrogates."""
_CONTROLS = re.compile(f"[{_CONTROL}]")
_CONTROLS_BUT_NEWLINES = re.compile(f"(?!\n)[{_CONTROL}]")


def printable(text: str) -> str:
    r"""Escape control characters including newlines, e.g. as `\x1b`. The result is one line."""
    return _CONTROLS.sub(_escaped, text)


def printable_lines(text: str) -> str:
    r"""Escape control characters except newlines, e.g. as `\x1b`."""
    return _CONTROLS_BUT_NEWLINES.sub(_escaped, text)


def printable_json(value: object, *, ascii_only: bool = False) -> str:
    r"""Return a value as one line of JSON with control characters escaped, e.g. as `\u009b`.

    Args:
        value: JSON-compatible value.
        ascii_only: True also escapes all other characters beyond ASCII.

    Raises:
        ValueError: the value contains a non-finite number.
    """
    text = json.dumps(value, ensure_ascii=ascii_only, allow_nan=False)
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()
