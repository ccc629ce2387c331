"""What a device is held against: one line a check."""

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Check", "bounded", "checklist"]

_MARKS = {True: "[✓]", False: "[✗]", None: "[-]"}


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    found: str
    asked: str
    passed: bool | None
    """None: not judged, for the reason that `found` tells."""


def checklist(checks: Sequence[Check]) -> str:
    """The checks for a terminal, one a line: `[✓]` kept, `[✗]` broken, `[-]` not judged."""
    name_width, found_width = (
        max(len(text) for text in texts)
        for texts in ([check.name for check in checks], [check.found for check in checks])
    )
    return "\n".join(
        f"{_MARKS[check.passed]} {check.name:{name_width}}  {check.found:{found_width}}  "
        f"{f'({check.asked})' if check.asked else ''}{'  FAILED' if check.passed is False else ''}".rstrip()
        for check in checks
    )


def bounded(name: str, value: float, bound: float, form: str) -> Check:
    """A figure that must not exceed its bound; `form` shows it with its unit."""
    unit = form.partition("}")[2]
    return Check(name, form.format(value), f"<= {bound:.4g}{unit}", value <= bound)  # a NaN is not
