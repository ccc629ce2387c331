"""Validation checks as plain text for terminals and logs."""

import math
from collections.abc import Sequence

from kdedge_export.html.text import AS_GOOD_AS_ONE
from kdedge_export.validation.check import Check, Outcome, Unit

__all__ = ["bound_text", "checklist", "found", "outcome_words", "plain_speed", "spread"]

_MARKS: dict[Outcome, str] = {
    "passed": "[✓]",
    "failed": "[✗]",
    "inconclusive": "[?]",
    "not measured": "[-]",
    "not applicable": "[ ]",
}


def checklist(checks: Sequence[Check]) -> list[str]:
    """Format checks, one per line: `[✓]` passed, `[✗]` failed, `[?]` inconclusive, `[-]` not measured, `[ ]` omitted.

    ```
    [✓] fp32 top-1 agreement               100.00%                         (>= 100%)
    [✗] int8 map Pearson, 5th percentile   0.871        [0.862, 0.880]     (>= 0.9)    FAILED
    [?] int8 top-1 drop                    0.26 points  [-0.51, 1.28]      (<= 1 points)  INCONCLUSIVE with 390 …
    [-] int8 top-1 drop                    not measured: the samples have no labels
    [ ] fp32 top-1 agreement               not applicable: there is no PyTorch model to compare with
    ```
    """
    measured = [check for check in checks if check.passed is not None]
    widths = (
        max((len(check.name) for check in checks), default=0),
        max((len(found(check)) for check in measured), default=0),
        max((len(spread(check)) for check in measured), default=0),
    )
    return [_line(check, *widths) for check in checks]


def found(check: Check) -> str:
    """Format the measured value, with enough digits not to contradict the bound, or to be 1, by rounding."""
    if check.measured is None:
        return f"{check.outcome}: {check.reason}" if check.passed is None else "no value"
    return _as_precise(check.measured, check) + _SUFFIXES[check.unit]


def spread(check: Check) -> str:
    """Format the 95% interval as `[low, high]`, with enough digits; empty without an interval."""
    if check.interval is None:
        return ""
    return f"[{_as_precise(check.interval.low, check)}, {_as_precise(check.interval.high, check)}]"


def bound_text(check: Check) -> str:
    """Format the bound with its relation: `>= 0.98`."""
    return f"{check.relation} {_bound(check.bound, check.unit)}"


def outcome_words(check: Check) -> str:
    """Return the outcome in words for a check that did not pass; of one that did, its reason or an empty string."""
    if check.outcome == "failed":
        return "FAILED" + ("" if check.reason is None else f": {check.reason}")
    return f"INCONCLUSIVE {check.reason}" if check.outcome == "inconclusive" else check.reason or ""


def plain_speed(name: str, fp32_ms: float, own_ms: float, where: str) -> str:
    """Describe the speedup of a precision, such as `int8 is 1.50 times as fast as fp32 here (2.00 vs 3.00 ms)`."""
    ratio, figures = fp32_ms / own_ms, f"({own_ms:.2f} vs {fp32_ms:.2f} ms)"
    if ratio >= 1.05:
        return f"{name} is {ratio:.2f} times as fast as fp32 {where} {figures}."
    if ratio > 0.95:
        return f"{name} is not faster than fp32 {where} {figures}: it saves space, not time."
    return f"{name} is slower than fp32 {where} {figures}: run the fp32 file there."


_MIN_DIGITS: dict[Unit, int] = {
    "share": 2,
    "points": 2,
    "variance": 4,
    "correlation": 3,
    "error": 1,
    "area": 3,
    "nats": 4,
    "count": 0,
    "per hour": 2,
    "MB": 2,
    "ms": 2,
}
_MAX_DIGITS = 9
_SUFFIXES: dict[Unit, str] = {
    "share": "%",
    "points": " points",
    "variance": "",
    "correlation": "",
    "error": "",
    "area": "",
    "nats": " nats",
    "count": "",
    "per hour": " /h",
    "MB": " MB",
    "ms": " ms",
}


def _line(check: Check, name_width: int, found_width: int, spread_width: int) -> str:
    start = f"{_MARKS[check.outcome]} {check.name:<{name_width}}  "
    if check.passed is None:
        return start + found(check)
    figures = f"{found(check):<{found_width}}  " + (f"{spread(check):<{spread_width}}  " if spread_width else "")
    return f"{start}{figures}({bound_text(check)})  {outcome_words(check)}".rstrip()


def _as_precise(value: float, check: Check) -> str:
    """Format a number with the fewest digits that keep it on the same side of the bound."""
    fewest = _MIN_DIGITS[check.unit]
    texts = [_format(value, check.unit, digits) for digits in range(fewest, _MAX_DIGITS)]
    return next((text for text in texts if _same_side(text, value, check)), texts[-1])


def _format(value: float, unit: Unit, digits: int) -> str:
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else "infinite"
    if unit == "error":
        return f"{value:.{digits}e}"
    return f"{value * (100 if unit == 'share' else 1):,.{digits}f}"


def _bound(value: float, unit: Unit) -> str:
    number = f"{value:,}" if unit == "count" else f"{value * (100 if unit == 'share' else 1):g}"
    return number + _SUFFIXES[unit]


def _same_side(text: str, value: float, check: Check) -> bool:
    try:
        shown = float(text.replace(",", ""))
    except ValueError:
        return True
    shown /= 100 if check.unit == "share" else 1
    if check.unit == "correlation" and shown == 1 and value < AS_GOOD_AS_ONE:
        return False
    if check.relation == ">=":
        return (shown >= check.bound) == (value >= check.bound)
    return (shown <= check.bound) == (value <= check.bound)
