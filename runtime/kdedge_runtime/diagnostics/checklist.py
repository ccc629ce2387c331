"""Checks of a device, reported one per line."""

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["DeviceCheck", "check_bound", "checklist"]

_MARKS = {True: "[✓]", False: "[✗]", None: "[-]"}


@dataclass(frozen=True)
class DeviceCheck:
    """Result of one check."""

    name: str
    found: str
    expected: str
    passed: bool | None
    """True if passed, False if failed, None if not evaluated (`found` gives the reason)."""


def checklist(checks: Sequence[DeviceCheck]) -> str:
    """Return the checks as text, one per line: `[✓]` passed, `[✗]` failed, `[-]` not evaluated."""
    name_width, found_width = (
        max(len(text) for text in texts)
        for texts in ([check.name for check in checks], [check.found for check in checks])
    )
    return "\n".join(
        f"{_MARKS[check.passed]} {check.name:{name_width}}  {check.found:{found_width}}  "
        f"{f'({check.expected})' if check.expected else ''}{'  FAILED' if check.passed is False else ''}".rstrip()
        for check in checks
    )


def check_bound(name: str, value: float, bound: float, form: str) -> DeviceCheck:
    """Check that a value does not exceed its bound. `form` formats the value with its unit."""
    unit = form.partition("}")[2]
    return DeviceCheck(name, form.format(value), f"<= {bound:.4g}{unit}", value <= bound)  # False for NaN
