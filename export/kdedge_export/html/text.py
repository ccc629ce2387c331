"""Formatting of numbers as plain text."""

import math
from collections.abc import Iterable

from kdedge_runtime.util.counts import number_text

__all__ = [
    "AS_GOOD_AS_ONE",
    "NONE",
    "correlation",
    "large",
    "megabytes",
    "percent",
    "plain_number",
    "points",
    "quantity",
    "signed_number",
    "sizes",
]

NONE = "–"
"""Text in place of a value that was not measured."""
AS_GOOD_AS_ONE = 0.9999995
"""Smallest correlation that float32 cannot distinguish from 1."""


def percent(share: float | None, digits: int = 1) -> str:
    """Format a fraction in [0, 1] in percent."""
    return NONE if share is None else quantity(100 * share, digits, "%")


def points(value: float) -> str:
    """Format a signed difference in percentage points, with a true minus sign."""
    return f"{value:+.1f}".replace("-", "−") if round(value, 1) else "0.0"


def correlation(value: float | None) -> str:
    """Format a correlation or an IoU with three digits, four from 0.999; values below 1 are never shown as 1."""
    if value is not None and 0.999 <= value < AS_GOOD_AS_ONE:
        return f"{min(value, 0.9999):.4f}"
    return NONE if value is None else quantity(value, 3)


def quantity(value: float, digits: int, unit: str = "") -> str:
    """Format a number with a fixed number of decimals; a dash for non-finite values."""
    return f"{value:.{digits}f}{unit}".replace("-", "−") if math.isfinite(value) else NONE


def plain_number(value: float, unit: str | None = None) -> str:
    """Format a value with four digits, or as an integer from 1,000 to a billion, as the device does; with its unit."""
    if not math.isfinite(value):
        return NONE
    return ("−" if value < 0 else "") + number_text(abs(value)) + ("" if unit is None else f" {unit}")


def signed_number(value: float) -> str:
    """Format a signed difference of values, as `plain_number`."""
    if not math.isfinite(value):
        return NONE
    return f"{'+' if value > 0 else '−' if value < 0 else ''}{number_text(abs(value))}"


def megabytes(size: int) -> str:
    """Format a size in bytes as kB or MB (powers of ten)."""
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"


def large(count: float) -> str:
    """Format a count with three digits and a k, M or G suffix: `1.25 M`."""
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if count >= 0.9995 * size:
            return f"{count / size:.3g}{unit}"
    return f"{count:g}"


def sizes(shape: Iterable[int | None]) -> str:
    """Format a tensor's shape: `3 × ? × 7`, with a question mark for a symbolic size."""
    return " × ".join("?" if size is None else str(size) for size in shape)
