"""Checks of values that were read from JSON."""

import math
from typing import Any

__all__ = ["is_finite_number"]


def is_finite_number(value: Any) -> bool:
    """Return True if a JSON value is a number other than NaN and infinity; booleans are not numbers.

    Raises:
        OverflowError: an integer is too large for a float.
    """
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
