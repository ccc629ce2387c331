"""The verdict as plain text, for a terminal or a log."""

import math
from collections.abc import Sequence

from kdedge_export.validate.gates import Check, Unit

__all__ = ["asked_for", "checklist", "found"]

_MARKS = {True: "[x]", False: "[ ]", None: "[-]"}
_OUTCOMES = {True: "", False: "  FAILED", None: ""}


def checklist(checks: Sequence[Check]) -> list[str]:
    """One line a check: `[x]` kept, `[ ]` broken, `[-]` not measured.

    ```
    [x] fp32 top-1 agreement               100.00 %      (>= 100 %)
    [ ] int8 map Pearson, 5th percentile   0.871         (>= 0.9)  FAILED
    [-] int8 top-1 drop                    not measured: the images have no labels
    ```
    """
    name_width = max((len(check.name) for check in checks), default=0)
    found_width = max((len(found(check)) for check in checks if check.passed is not None), default=0)
    return [_line(check, name_width, found_width) for check in checks]


def found(check: Check) -> str:
    """What was measured, with as many digits as it takes not to contradict the verdict by rounding."""
    if check.measured is None:
        return f"not measured: {check.reason}"
    fewest = _FEWEST_DIGITS[check.unit]
    texts = [_format(check.measured, check.unit, digits) for digits in range(fewest, _MOST_DIGITS)]
    return next((text for text in texts if _agrees(text, check)), texts[-1])


def asked_for(check: Check) -> str:
    """The bound, with its relation: `>= 0.98`."""
    return f"{check.relation} {_bound(check.bound, check.unit)}"


_FEWEST_DIGITS: dict[Unit, int] = {"share": 2, "points": 2, "correlation": 3, "error": 1}
_MOST_DIGITS = 9
_SUFFIXES: dict[Unit, str] = {"share": " %", "points": " points", "correlation": "", "error": ""}


def _line(check: Check, name_width: int, found_width: int) -> str:
    start = f"{_MARKS[check.passed]} {check.name:<{name_width}}  {found(check)}"
    if check.passed is None:
        return start
    padding = " " * (found_width - len(found(check)))
    return f"{start}{padding}  ({asked_for(check)}){_OUTCOMES[check.passed]}"


def _format(value: float, unit: Unit, digits: int) -> str:
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else "infinite"
    if unit == "error":
        return f"{value:.{digits}e}"
    scale = 100 if unit == "share" else 1
    return f"{value * scale:.{digits}f}{_SUFFIXES[unit]}"


def _bound(value: float, unit: Unit) -> str:
    return f"{value * 100:g}{_SUFFIXES[unit]}" if unit == "share" else f"{value:g}{_SUFFIXES[unit]}"


def _agrees(text: str, check: Check) -> bool:
    try:
        shown = float(text.removesuffix(_SUFFIXES[check.unit]))
    except ValueError:
        return True
    shown /= 100 if check.unit == "share" else 1
    return (shown >= check.bound if check.relation == ">=" else shown <= check.bound) == check.passed
