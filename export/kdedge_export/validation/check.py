"""Checks: a bound, the measured value and the outcome, for exact values and for values with an interval."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from kdedge_export.metrics.confidence import Interval, rounded_up, samples_needed
from kdedge_export.metrics.task_metrics import TaskWording
from kdedge_runtime.util.counts import counted

__all__ = [
    "Check",
    "Outcome",
    "Relation",
    "accuracy_difference",
    "Estimate",
    "Unit",
    "applicable",
    "check_value",
    "check_sample",
    "inconclusive",
    "verdict",
]

Unit = Literal["share", "points", "variance", "correlation", "error", "area", "nats", "count", "per hour", "MB", "ms"]
"""Unit of a measured value: a fraction in [0, 1], percentage points, a share of the variance such as R², a Pearson
correlation, a relative error, a difference of areas under probability curves, a divergence in nats, a count, a rate per
hour, a size in 10^6 bytes, milliseconds."""
Outcome = Literal["passed", "failed", "inconclusive", "not measured", "not applicable"]
"""Outcome of a check.

`failed`: the measured value violates the bound. `inconclusive`: the bound holds for the estimate but not
for its confidence interval, or the violation is within numerical error. `not applicable`: the check does not apply to
these models.
"""
Relation = Literal[">=", "<="]


@dataclass(frozen=True)
class Check:
    """Outcome of one bound on a measured value."""

    key: str
    """Stable identifier; the name of the `Gates` field that holds the bound, if there is one."""
    name: str
    """Human-readable name."""
    measured: float | None
    """Measured value, or None if it could not be measured."""
    relation: Relation
    """Comparison operator: the check requires `measured relation bound`; `fp32_known_rejected` requires it of the lower
    end of `interval`."""
    bound: float
    unit: Unit
    outcome: Outcome
    interval: Interval | None = None
    """95% interval; None for exact values and if there are too few samples."""
    samples_needed: int | None = None
    """Approximate number of samples that would make the check conclusive at this estimate; None if it already is or no
    number would."""
    reason: str | None = None
    """Explanation of the outcome, if there is more to add than the measured value."""

    @property
    def passed(self) -> bool | None:
        """True if the check passed, False if not; None if nothing was measured."""
        return None if self.outcome in ("not measured", "not applicable") else self.outcome == "passed"


@dataclass(frozen=True)
class Estimate:
    """Estimate of a population value, measured on samples."""

    measured: float | None
    """Estimate, or None if it could not be measured."""
    interval: Interval | None
    n: int
    """Number of samples measured."""
    of: int
    """Number of samples given; the value is undefined on the others."""
    worst: float | None = None
    """Worst score of an unseen sample, assumed by the interval; None if the interval assumes none."""
    fewest: int = 1
    """Minimum number of samples for an interval."""
    most: int | None = None
    """Maximum number of samples this value is ever measured on; None for no limit."""


def accuracy_difference(wording: TaskWording) -> tuple[Unit, float]:
    """Return the unit of a difference of accuracies, and the number of units in a difference of 1."""
    return ("points", 100.0) if wording.is_share else ("variance", 1.0)


def check_value(
    key: str,
    name: str,
    measured: float | None,
    relation: Relation,
    bound: float,
    unit: Unit,
    reason: str | None = None,
) -> Check:
    """Check an exact value against its bound; `reason` is kept only if it was not measured or fails."""
    if measured is None:
        return Check(key, name, None, relation, bound, unit, "not measured", reason=reason)
    if _kept(measured, relation, bound):
        return Check(key, name, measured, relation, bound, unit, "passed")
    return Check(key, name, measured, relation, bound, unit, "failed", reason=reason)


def check_sample(
    key: str,
    name: str,
    sample: Estimate,
    relation: Relation,
    bound: float,
    unit: Unit,
    reason: str | None = None,
) -> Check:
    """Check the unfavorable end of a confidence interval against its bound.

    `reason` is kept only if the value was not measured or fails.
    """
    measured, interval = sample.measured, sample.interval
    if measured is None or not _kept(measured, relation, bound):
        return replace(check_value(key, name, measured, relation, bound, unit, reason), interval=interval)
    end = None if interval is None else interval.low if relation == ">=" else interval.high
    if end is not None and _kept(end, relation, bound):
        return Check(key, name, measured, relation, bound, unit, "passed", interval)
    needed, why = _samples_needed_text(sample, measured, end, bound)
    return Check(key, name, measured, relation, bound, unit, "inconclusive", interval, needed, why)


def applicable(checks: Sequence[Check]) -> list[Check]:
    """Return the checks that apply to the models."""
    return [check for check in checks if check.outcome != "not applicable"]


def inconclusive(checks: Sequence[Check]) -> tuple[int, int]:
    """Count the inconclusive checks that more samples would settle, and those they would not."""
    unshown = [check.samples_needed is not None for check in checks if check.outcome == "inconclusive"]
    return sum(unshown), len(unshown) - sum(unshown)


def verdict(checks: Sequence[Check]) -> bool:
    """Return True if no measured check failed or is inconclusive, and at least one passed."""
    return all(check.passed is not False for check in checks) and any(check.passed for check in checks)


def _samples_needed_text(sample: Estimate, measured: float, end: float | None, bound: float) -> tuple[int | None, str]:
    """Return the number of samples that would settle a check, or None, and an explanation."""
    n, of = sample.n, sample.of
    samples = f"with {counted(n, 'sample')}"
    if sample.most is not None and n >= sample.most:
        return None, f"{samples}, the maximum for this check"
    if n < of:
        samples += f" of {of:,}, since the other maps are constant"
    needed = sample.fewest if end is None else samples_needed(n, measured, end, bound, sample.worst)
    if needed is None:
        return None, f"{samples} the estimate equals the bound, which no number of samples settles"
    needed = max(needed, sample.fewest)
    if n < of:
        needed = rounded_up(needed * of / n)
    return needed, f"{samples}; about {needed:,} needed to confirm"


def _kept(value: float, relation: Relation, bound: float) -> bool:
    # Comparisons with NaN are False, so NaN never satisfies a bound.
    return value >= bound if relation == ">=" else value <= bound
