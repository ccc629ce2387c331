"""Bounds that an exported model must keep, and the verdict on each.

The burden of proof is the model's. A figure that stands for all pictures but was measured on some has an interval, and
a bound is kept where the interval's unfavourable end keeps it: then it is *shown*. Where the figure keeps the bound and
the end does not, these images are too few to tell: that is *not shown*, and does not pass. Fewer than 30 images show
nothing, since a bootstrap cannot know of what none of them holds. What must be exactly so on every image (an export
changes nothing) or says something of the model and not of pictures (a file's size, what a map depends on) is judged by
itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Literal

from kdedge_export.validate.compare import Comparison
from kdedge_export.validate.footprint import Footprint
from kdedge_export.validate.intervals import Interval, images_needed
from kdedge_export.validate.roles import Role
from kdedge_export.validate.rounding import CEILING, Hardest
from kdedge_export.validate.sanity import WITHOUT_CLASS, Sanity, Test
from kdedge_runtime.devices import Budgets
from kdedge_runtime.metadata import ImageInput

__all__ = [
    "Check",
    "Gates",
    "Outcome",
    "Unit",
    "check_budgets",
    "check_comparison",
    "check_input",
    "check_labels",
    "check_sanity",
    "check_unchanged",
    "verdict",
]

Unit = Literal["share", "points", "correlation", "error", "count", "MB", "ms"]
"""How a number is meant: a share in [0, 1], percentage points, a Pearson correlation, a relative error, a
number of things, a size of 10^6 bytes, milliseconds."""
Outcome = Literal["passed", "failed", "not shown", "not measured"]
"""`failed`: the figure itself breaks the bound. `not shown`: it keeps the bound, but its interval's end does not;
or what breaks it may be rounding, and may be not."""

FEWEST_IMAGES = 30
_NO_MAP = "no saliency map in the model file"
_TESTS: dict[Test, str] = {"class": "another class", "picture": "another picture", "head": "a random head"}


@dataclass(frozen=True)
class Gates:
    """The least that an exported model must keep of the PyTorch student."""

    fp32_agreement: float = 1.0
    """Share of images in [0, 1] on which the fp32 file gives the student's answer: an export changes nothing."""
    fp32_map_error: float = 1e-4
    """Largest error of any map cell, in units of the range of that image's map."""
    fp32_map_rounding: float = CEILING
    """Where float32 itself costs an image's map more, the error that this explains, up to here."""
    int8_top1_drop_points: float = 1.0
    """Accuracy that int8 may cost, in percentage points."""
    int8_agreement: float = 0.90
    """Share of images in [0, 1] with the student's answer; asked only where no labels tell the accuracy."""
    int8_map_pearson_mean: float = 0.98
    int8_map_pearson_p5: float = 0.90
    """The 5th percentile over images: a good mean may not hide a bad tail."""
    map_follows: float = 0.95
    """Share of images in [0, 1] whose map changes with the class, with the picture and with the head's weights."""


@dataclass(frozen=True)
class Check:
    """One bound and how the model stands to it."""

    key: str
    """Stable name for programs; the field of `Gates` that holds the bound, where there is one."""
    name: str
    """Name for people."""
    measured: float | None
    """None where it could not be measured."""
    relation: Literal[">=", "<="]
    """`measured relation bound` is what is asked."""
    bound: float
    unit: Unit
    outcome: Outcome
    interval: Interval | None = None
    """None for a figure that is judged by itself."""
    images_needed: int | None = None
    """About how many images would show it, if the figure stayed as it is; only where it is not shown."""
    reason: str | None = None
    """Why it was not measured, was not shown or failed, where more can be said than the figure does."""

    @property
    def passed(self) -> bool | None:
        """Whether it is shown that the bound is kept; None where nothing was measured."""
        return None if self.outcome == "not measured" else self.outcome == "passed"


def check_comparison(
    role: Role, comparison: Comparison, gates: Gates, map_error: Hardest | None = None
) -> tuple[Check, ...]:
    """Judge a model file by its comparison with the PyTorch student.

    Args:
        role: `fp32` or `int8`; other models are compared for information and face no gate.
        comparison: the file held against the student.
        gates: the bounds.
        map_error: of the fp32 file's maps the one that decides, where rounding was measured; None asks all to keep
            the bound without.
    """
    if role == "fp32":
        return _check_fp32(comparison, gates, map_error)
    if role == "int8":
        return _check_int8(comparison, gates)
    return ()


def check_labels(role: Role, expected: Sequence[str], labels: Sequence[str]) -> Check:
    """Judge the class names inside a model file: each at its place, or right answers get wrong names.

    Args:
        role: of the file.
        expected: names in the order of the student's logits.
        labels: names in the order of the file's.
    """
    pairs = list(zip_longest(expected, labels))
    odd = next((f"class {place} is {b!r}, trained as {a!r}" for place, (a, b) in enumerate(pairs) if a != b), None)
    share = sum(a == b for a, b in pairs) / max(len(pairs), 1)
    return _judge(f"{role}_labels", f"{role} labels in their places", share, ">=", 1.0, "share", odd)


def check_input(role: Role, expected: ImageInput, stated: ImageInput) -> Check:
    """Judge what a model file says of its input: the size, resizing and normalising that the student was trained with.

    A device brings pictures to size as the file says. Another rule than in training costs accuracy without an error.

    Args:
        role: of the file.
        expected: the student's input.
        stated: the file's.
    """
    trained, found = vars(expected), vars(stated)
    odd = [
        f"{name} is {found[name]!r}, trained with {value!r}" for name, value in trained.items() if found[name] != value
    ]
    share, name = 1 - len(odd) / len(trained), f"{role} input described as trained"
    return _judge(f"{role}_input", name, share, ">=", 1.0, "share", "; ".join(odd) or None)


def check_sanity(row: Sanity, method: str, gates: Gates) -> Check:
    """Judge whether a model's maps, made by this method, follow a change.

    Args:
        row: what the change did.
        method: one of `kdedge_export.saliency.METHODS`; some explain no class, and are held against pictures only.
        gates: the bounds.
    """
    key, name = _named(row.role, row.test)
    if method in WITHOUT_CLASS and row.test != "picture":
        return _judge(key, name, None, ">=", gates.map_follows, "share", f"{method} explains no class in particular")
    return _judge(key, name, row.changed, ">=", gates.map_follows, "share")


def check_unchanged(role: Role, test: Literal["class", "picture"], gates: Gates) -> Check:
    """What to say of a change that could not be made, since there is one class, or one picture, only."""
    key, name = _named(role, test)
    if test == "class":
        return _judge(key, name, None, ">=", gates.map_follows, "share", "there is no other class")
    reason = "with 1 image; it takes 2 at least"
    return Check(key, name, None, ">=", gates.map_follows, "share", "not shown", images_needed=2, reason=reason)


def check_budgets(role: Role, footprint: Footprint, budgets: Budgets) -> tuple[Check, ...]:
    """Judge what a model file takes by what its device allows; only what the device limits.

    Args:
        role: of the file.
        footprint: what it takes: 10^6 bytes, parameters, milliseconds.
        budgets: the most it may take, in the same units; None for what is not limited.
    """
    figures: tuple[tuple[str, str, float | None, float | None, Unit], ...] = (
        ("file_mb", "file size", footprint.file_mb, budgets.file_mb, "MB"),
        ("parameters", "parameters", footprint.parameters, budgets.parameters, "count"),
        ("peak_memory_mb", "peak memory, measured here", footprint.peak_memory_mb, budgets.peak_memory_mb, "MB"),
        ("latency_ms", "latency, measured here", footprint.latency_ms, budgets.latency_ms, "ms"),
    )
    return tuple(
        _judge(f"{role}_{key}", f"{role} {name}", measured, "<=", most, unit)
        for key, name, measured, most, unit in figures
        if most is not None
    )


def verdict(checks: Sequence[Check]) -> bool:
    """Whether nothing failed, everything that was measured is shown, and something was measured at all."""
    return all(check.passed is not False for check in checks) and any(check.passed for check in checks)


def _named(role: Role, test: Test) -> tuple[str, str]:
    return f"{role}_map_follows_{test}", f"{role} map changes with {_TESTS[test]}"


def _check_fp32(comparison: Comparison, gates: Gates, map_error: Hardest | None) -> tuple[Check, ...]:
    agreement = comparison.agreement
    return (
        _judge("fp32_agreement", "fp32 top-1 agreement", agreement, ">=", gates.fp32_agreement, "share"),
        _check_fp32_maps(comparison, gates, map_error),
    )


def _check_fp32_maps(comparison: Comparison, gates: Gates, decisive: Hardest | None) -> Check:
    key, name, maps = "fp32_map_error", "fp32 map error", comparison.maps
    if decisive is None or maps is None:
        error, no_map = (None, _NO_MAP) if maps is None else (maps.error_relative, None)
        return _judge(key, name, error, "<=", gates.fp32_map_error, "error", no_map)
    reason = None
    if decisive.outcome == "not shown":
        reason = (
            f"since float32 alone explains up to {decisive.rounding:.0e} of the range on this picture: the network is "
            "ill-conditioned there"
        )
    return Check(key, name, decisive.error, "<=", decisive.bound, "error", decisive.outcome, reason=reason)


def _check_int8(comparison: Comparison, gates: Gates) -> tuple[Check, ...]:
    n, drop, intervals = comparison.n, comparison.top1_drop_points, comparison.intervals
    key, bound = "int8_top1_drop_points", gates.int8_top1_drop_points
    unlabelled = "the images have no labels"
    checks = [_judge_sample(key, "int8 top-1 drop", drop, intervals.get(key[5:]), "<=", bound, "points", n, unlabelled)]
    if drop is None:
        agreement, name = comparison.agreement, "int8 top-1 agreement"
        ends, bound = intervals["agreement"], gates.int8_agreement
        checks.append(_judge_sample("int8_agreement", name, agreement, ends, ">=", bound, "share", n))
    maps = comparison.maps
    of_maps: Mapping[str, Interval | None] = {} if maps is None else maps.intervals
    for field, name in (("pearson_mean", "mean"), ("pearson_p5", "5th percentile")):
        key, name = f"int8_map_{field}", f"int8 map Pearson, {name}"
        measured: float | None = None if maps is None else getattr(maps, field)
        ends, bound = of_maps.get(field), getattr(gates, key)
        checks.append(_judge_sample(key, name, measured, ends, ">=", bound, "correlation", n, _NO_MAP))
    return tuple(checks)


def _judge(
    key: str,
    name: str,
    measured: float | None,
    relation: Literal[">=", "<="],
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


def _judge_sample(
    key: str,
    name: str,
    measured: float | None,
    interval: Interval | None,
    relation: Literal[">=", "<="],
    bound: float,
    unit: Unit,
    n: int,
    why_not: str | None = None,
) -> Check:
    if measured is None or not _kept(measured, relation, bound):
        by_itself = _judge(key, name, measured, relation, bound, unit, why_not if measured is None else None)
        return replace(by_itself, interval=interval)
    images = f"with {n:,} image{'' if n == 1 else 's'}"
    if n < FEWEST_IMAGES or interval is None:
        reason = f"{images}; it takes {FEWEST_IMAGES} at least"
        return Check(key, name, measured, relation, bound, unit, "not shown", interval, FEWEST_IMAGES, reason)
    end = interval.low if relation == ">=" else interval.high
    if _kept(end, relation, bound):
        return Check(key, name, measured, relation, bound, unit, "passed", interval)
    needed = images_needed(n, measured, end, bound)
    reason = (
        f"{images} it lies on the bound, which no number of images shows"
        if needed is None
        else f"{images}; about {needed:,} would show it"
    )
    return Check(key, name, measured, relation, bound, unit, "not shown", interval, needed, reason)


def _kept(value: float, relation: Literal[">=", "<="], bound: float) -> bool:
    # A NaN compares as False in both directions, so it is never kept.
    return value >= bound if relation == ">=" else value <= bound
