"""One bound, how a model stands to it, and how to judge a figure: by itself, or by its interval."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from kdedge_export.metrics.confidence import Interval, images_needed, rounded_up

__all__ = [
    "Check",
    "Outcome",
    "Relation",
    "Sample",
    "Unit",
    "applicable",
    "judge",
    "judge_sample",
    "not_shown",
    "verdict",
]

Unit = Literal["share", "points", "correlation", "error", "area", "nats", "count", "MB", "ms"]
"""How a number is meant: a share in [0, 1], percentage points, a Pearson correlation, a relative error, a
difference of areas under curves of probabilities, a divergence in nats, a number of things, a size of 10^6 bytes,
milliseconds."""
Outcome = Literal["passed", "failed", "not shown", "not measured", "not applicable"]
"""`failed`: the figure itself breaks the bound. `not shown`: it keeps the bound, but its interval's end does not;
or what breaks it may be rounding, and may be not. `not applicable`: nobody asks it of these models."""
Relation = Literal[">=", "<="]


@dataclass(frozen=True)
class Check:
    """One bound and how the model stands to it."""

    key: str
    """Stable name for programs; the field of `Gates` that holds the bound, where there is one."""
    name: str
    """Name for people."""
    measured: float | None
    """None where it could not be measured."""
    relation: Relation
    """`measured relation bound` is what is asked."""
    bound: float
    unit: Unit
    outcome: Outcome
    interval: Interval | None = None
    """None for a figure that is judged by itself, and where so few images allow none."""
    images_needed: int | None = None
    """About how many images would show it, if the figure stayed as it is; None where it is shown, or no number would.
    """
    reason: str | None = None
    """Why it does not apply, was not measured, was not shown or failed, where more can be said than the figure does."""

    @property
    def passed(self) -> bool | None:
        """Whether it is shown that the bound is kept; None where nothing was measured."""
        return None if self.outcome in ("not measured", "not applicable") else self.outcome == "passed"


@dataclass(frozen=True)
class Sample:
    """A figure that stands for all pictures, and was measured on some."""

    measured: float | None
    """None where it could not be measured."""
    interval: Interval | None
    n: int
    """Images that it was measured on."""
    of: int
    """Images that were given; on the others the figure is not defined."""
    worst: float | None = None
    """What the interval takes a picture unlike all of these to score; None where it counts none."""
    fewest: int = 1
    """Images on which there is an interval at all."""
    most: int | None = None
    """The figure is never measured on more images; None for no such limit."""


def judge(
    key: str,
    name: str,
    measured: float | None,
    relation: Relation,
    bound: float,
    unit: Unit,
    reason: str | None = None,
) -> Check:
    """A figure judged by itself; the reason is told where it is not measured or fails."""
    if measured is None:
        return Check(key, name, None, relation, bound, unit, "not measured", reason=reason)
    if _kept(measured, relation, bound):
        return Check(key, name, measured, relation, bound, unit, "passed")
    return Check(key, name, measured, relation, bound, unit, "failed", reason=reason)


def judge_sample(
    key: str,
    name: str,
    sample: Sample,
    relation: Relation,
    bound: float,
    unit: Unit,
    reason: str | None = None,
) -> Check:
    """A figure judged by the unfavourable end of its interval; the reason is told where it is not measured or fails."""
    measured, interval = sample.measured, sample.interval
    if measured is None or not _kept(measured, relation, bound):
        return replace(judge(key, name, measured, relation, bound, unit, reason), interval=interval)
    end = None if interval is None else interval.low if relation == ">=" else interval.high
    if end is not None and _kept(end, relation, bound):
        return Check(key, name, measured, relation, bound, unit, "passed", interval)
    needed, why = _what_would_show(sample, measured, end, bound)
    return Check(key, name, measured, relation, bound, unit, "not shown", interval, needed, why)


def applicable(checks: Sequence[Check]) -> list[Check]:
    """Return the checks that apply to the models."""
    return [check for check in checks if check.outcome != "not applicable"]


def not_shown(checks: Sequence[Check]) -> tuple[int, int]:
    """How many checks more images would show, and how many not shown ones they would not."""
    unshown = [check.images_needed is not None for check in checks if check.outcome == "not shown"]
    return sum(unshown), len(unshown) - sum(unshown)


def verdict(checks: Sequence[Check]) -> bool:
    """Whether nothing failed, everything that was measured is shown, and something was measured at all."""
    return all(check.passed is not False for check in checks) and any(check.passed for check in checks)


def _what_would_show(sample: Sample, measured: float, end: float | None, bound: float) -> tuple[int | None, str]:
    """How many images would show it, None where no number would, and the same in words."""
    n, of = sample.n, sample.of
    images = f"with {n:,} image{'' if n == 1 else 's'}"
    if sample.most is not None and n >= sample.most:
        return None, f"{images}, and it is asked on no more"
    if n < of:
        images += f" of {of:,}, since the other maps are constant"
    needed = sample.fewest if end is None else images_needed(n, measured, end, bound, sample.worst)
    if needed is None:
        return None, f"{images} it lies on the bound, which no number of images shows"
    needed = max(needed, sample.fewest)
    if n < of:
        needed = rounded_up(needed * of / n)
    return needed, f"{images}; about {needed:,} would show it"


def _kept(value: float, relation: Relation, bound: float) -> bool:
    # A NaN compares as False in both directions, so it is never kept.
    return value >= bound if relation == ">=" else value <= bound
