"""Bounds that an exported model must keep, and the verdict on each."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from kdedge_export.validate.compare import Comparison
from kdedge_export.validate.roles import Role

__all__ = ["Check", "Gates", "Unit", "check_comparison", "check_labels", "verdict"]

Unit = Literal["share", "points", "correlation", "error"]
"""How a number is meant: a share in [0, 1], percentage points, a Pearson correlation, a relative error."""

_NO_MAP = "no saliency map in the model file"


@dataclass(frozen=True)
class Gates:
    """The least that an exported model must keep of the PyTorch student."""

    fp32_agreement: float = 1.0
    """Share of images in [0, 1] on which the fp32 file gives the student's answer: an export changes nothing."""
    fp32_map_error: float = 1e-4
    """Largest error of any map cell, in units of the range of that image's map."""
    int8_top1_drop_points: float = 1.0
    """Accuracy that int8 may cost, in percentage points."""
    int8_agreement: float = 0.90
    """Share of images in [0, 1] with the student's answer; asked only where no labels tell the accuracy."""
    int8_map_pearson_mean: float = 0.98
    int8_map_pearson_p5: float = 0.90
    """The 5th percentile over images: a good mean may not hide a bad tail."""


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
    passed: bool | None
    """None where it could not be measured: neither passed nor failed."""
    reason: str | None = None
    """Why it could not be measured."""


def check_comparison(role: Role, comparison: Comparison, gates: Gates) -> tuple[Check, ...]:
    """Judge a model file by its comparison with the PyTorch student.

    Args:
        role: `fp32` or `int8`; other models are compared for information and face no gate.
        comparison: the file held against the student.
        gates: the bounds.
    """
    if role == "fp32":
        return _check_fp32(comparison, gates)
    if role == "int8":
        return _check_int8(comparison, gates)
    return ()


def check_labels(role: Role, expected: Sequence[str], labels: Sequence[str]) -> Check:
    """Judge the class names inside a model file: each at its place, or right answers get wrong names."""
    same = sum(a == b for a, b in zip(expected, labels, strict=False))
    share = same / max(len(expected), len(labels), 1)
    return _at_least(f"{role}_labels", f"{role} labels in their places", share, 1.0, "share")


def _check_fp32(comparison: Comparison, gates: Gates) -> tuple[Check, ...]:
    error = None if comparison.maps is None else comparison.maps.error_relative
    return (
        _at_least("fp32_agreement", "fp32 top-1 agreement", comparison.agreement, gates.fp32_agreement, "share"),
        _at_most("fp32_map_error", "fp32 map error", error, gates.fp32_map_error, "error", _NO_MAP),
    )


def _check_int8(comparison: Comparison, gates: Gates) -> tuple[Check, ...]:
    maps, drop = comparison.maps, comparison.top1_drop_points
    checks = [
        _at_most(
            "int8_top1_drop_points",
            "int8 top-1 drop",
            drop,
            gates.int8_top1_drop_points,
            "points",
            "the images have no labels",
        )
    ]
    if drop is None:
        checks.append(
            _at_least("int8_agreement", "int8 top-1 agreement", comparison.agreement, gates.int8_agreement, "share")
        )
    mean, p5 = (None, None) if maps is None else (maps.pearson_mean, maps.pearson_p5)
    bounds = gates.int8_map_pearson_mean, gates.int8_map_pearson_p5
    checks += [
        _at_least("int8_map_pearson_mean", "int8 map Pearson, mean", mean, bounds[0], "correlation", _NO_MAP),
        _at_least("int8_map_pearson_p5", "int8 map Pearson, 5th percentile", p5, bounds[1], "correlation", _NO_MAP),
    ]
    return tuple(checks)


def _at_least(
    key: str, name: str, measured: float | None, bound: float, unit: Unit, why_not: str | None = None
) -> Check:
    passed = None if measured is None else measured >= bound
    return Check(key, name, measured, ">=", bound, unit, passed, why_not if measured is None else None)


def _at_most(
    key: str, name: str, measured: float | None, bound: float, unit: Unit, why_not: str | None = None
) -> Check:
    # A NaN compares as False in both directions, so it never passes.
    passed = None if measured is None else measured <= bound
    return Check(key, name, measured, "<=", bound, unit, passed, why_not if measured is None else None)


def verdict(checks: Sequence[Check]) -> bool:
    """Whether nothing failed and something was measured at all."""
    return all(check.passed is not False for check in checks) and any(check.passed for check in checks)
