"""Plot axes with round tick values."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Axis", "linear_axis", "log_axis"]

_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True)
class Axis:
    """Axis range with its tick values."""

    low: float
    high: float
    ticks: tuple[float, ...]
    logarithmic: bool = False

    def share(self, value: float) -> float:
        """Return the relative position of a value: 0 at the low end, 1 at the high end."""
        if self.logarithmic:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def linear_axis(values: Sequence[float], *, ticks: int = 5, least_step: float = 0.0) -> Axis:
    """Build a linear axis that spans all values, with round limits.

    Args:
        values: Values to show, one or more.
        ticks: Approximate number of steps.
        least_step: Minimum step; 1 for counts.
    """
    low, high = min(values), max(values)
    span = high - low or abs(high) or 1.0
    size = 10 ** math.floor(math.log10(span / ticks))
    steps = (size * factor for factor in _STEPS if size * factor >= span / ticks * (1 - 1e-9))
    step = max(least_step, next(step for step in steps if not least_step or step < 1 or step % least_step == 0))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    last = max(last, first + 1)
    # Rounded to the digits of the step, so that 3 · 0.1 is 0.3.
    digits = max(0, 2 - math.floor(math.log10(step)))
    marks = tuple(round(number * step, digits) for number in range(first, last + 1))
    return Axis(marks[0], marks[-1], marks)


def log_axis(values: Sequence[float]) -> Axis:
    """Build a logarithmic axis with ticks at 1, 2 and 5 times the powers of ten.

    Args:
        values: Values to show, one or more, all above 0.
    """
    exponents = range(math.floor(math.log10(min(values))), math.ceil(math.log10(max(values))) + 1)
    marks = [10.0**exponent * factor for exponent in exponents for factor in (1, 2, 5)]
    low = max((mark for mark in marks if mark <= min(values)), default=marks[0])
    high = min((mark for mark in marks if mark >= max(values) and mark > low), default=10 * low)
    shown = tuple(mark for mark in marks if low <= mark <= high)
    return Axis(low, high, shown, logarithmic=True)
