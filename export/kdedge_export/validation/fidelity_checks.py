"""Checks of a model file against the student: predictions, probabilities, and saliency maps of every class."""

from kdedge_export.metrics.comparison import Comparison, MapComparison
from kdedge_export.metrics.confidence import Interval, fewest_for_percentile
from kdedge_export.metrics.task_metrics import TaskWording
from kdedge_export.quantization import FidelityBounds
from kdedge_export.validation.check import (
    Check,
    Estimate,
    Outcome,
    Relation,
    Unit,
    accuracy_difference,
    check_sample,
    check_value,
)
from kdedge_export.validation.exactness import Exactness
from kdedge_export.validation.float_tolerance import WorstCase
from kdedge_export.validation.gates import NO_STUDENT, Gates
from kdedge_export.validation.other_classes import OtherClasses
from kdedge_runtime.diagnostics.default_class import DefaultClass
from kdedge_runtime.precision import FP32

__all__ = ["check_comparison", "check_default_class", "check_other_classes", "inapplicable_fp32_checks"]

_NO_MAP = "no saliency map in the model file"
_LOST_MAP = f"{_NO_MAP}, but its reference has one"
_OTHER_CLASSES = "fp32_other_map_error", "fp32 map error, other classes"


def check_comparison(
    role: str, comparison: Comparison, gates: Gates, exact: Exactness | None = None, ties: int = 0
) -> tuple[Check, ...]:
    """Check a model file by its comparison with its reference.

    Args:
        role: name of the file's precision; other models have no checks.
        comparison: comparison of the file with its reference.
        gates: the bounds.
        exact: decisive samples of the fp32 file, if the rounding error was measured; None checks the comparison alone.
        ties: number of samples on which the fp32 prediction differs by rounding alone, which count as agreement.
    """
    if role == FP32.name:
        return _check_fp32(comparison, gates, exact, ties)
    if (bounds := gates.precisions.get(role)) is not None:
        return (*_check_predictions(role, comparison, bounds), *_check_maps(role, comparison, bounds))
    return ()


def inapplicable_fp32_checks(gates: Gates, wording: TaskWording) -> tuple[Check, ...]:
    """Return the comparisons with PyTorch as not applicable, for model files from other frameworks.

    Args:
        gates: the bounds of these checks.
        wording: names of the task's metrics.
    """
    bounds = gates.fp32_logits_error, gates.fp32_divergence, gates.fp32_map_error
    rows: list[tuple[str, str, Relation, float, Unit]] = [(*_agreement(wording), ">=", gates.fp32_agreement, "share")]
    rows += [
        (key, name, "<=", bound, unit) for (key, name, unit), bound in zip(_fp32_names(wording), bounds, strict=True)
    ]
    rows += [(*_OTHER_CLASSES, "<=", gates.fp32_map_error, "error")]
    return tuple(
        Check(key, name, None, relation, bound, unit, "not applicable", reason=NO_STUDENT)
        for key, name, relation, bound, unit in rows
    )


def check_default_class(role: str, found: DefaultClass | None, wording: TaskWording) -> Check:
    """Check the map returned when no class is requested, the default on a device.

    Args:
        role: role of the file.
        found: measured result; None for a file without a map.
        wording: names of the task's metrics.
    """
    key, name = f"{role}_default_class", f"{role} explains its {wording.explained} by default"
    if found is None:
        return check_value(key, name, None, ">=", 1.0, "share", _NO_MAP)
    return check_value(key, name, found.kept / found.samples, ">=", 1.0, "share", found.fault)


def check_other_classes(role: str, found: OtherClasses | None, gates: Gates, why_not: str) -> Check:
    """Check a file's maps of classes other than the top-1 class.

    This tests the graph and not the rounding error on unseen samples, so the value is checked without an interval.

    Args:
        role: name of the file's precision.
        found: the comparison; None if there is none.
        gates: the bounds.
        why_not: reason why there is none.
    """
    if role == FP32.name:
        key, name = _OTHER_CLASSES
        if found is None or found.fp32_error is None:
            return check_value(key, name, None, "<=", gates.fp32_map_error, "error", why_not)
        return _check_hardest(key, name, found.fp32_error)
    measured, bound = None if found is None else found.pearson.get(role), gates.precisions[role].other_map_pearson
    name = f"{role} map Pearson, other classes"
    return check_value(f"{role}_other_map_pearson", name, measured, ">=", bound, "correlation", why_not)


def _agreement(wording: TaskWording) -> tuple[str, str]:
    return "fp32_agreement", f"fp32 {wording.agreement}"


def _fp32_names(wording: TaskWording) -> tuple[tuple[str, str, Unit], ...]:
    return (
        ("fp32_logits_error", f"fp32 {wording.outputs} error", "error"),
        ("fp32_divergence", f"fp32 {wording.divergence}", _divergence_unit(wording)),
        ("fp32_map_error", "fp32 map error", "error"),
    )


def _divergence_unit(wording: TaskWording) -> Unit:
    return "nats" if wording.is_share else "error"


def _check_fp32(comparison: Comparison, gates: Gates, exact: Exactness | None, ties: int) -> tuple[Check, ...]:
    agreement, maps = comparison.agreement, comparison.maps
    if ties:
        agreement = (round(agreement * comparison.n) + ties) / comparison.n
    bounds = gates.fp32_logits_error, gates.fp32_divergence, gates.fp32_map_error
    plain = comparison.logits_error, comparison.divergence, None if maps is None else maps.max_relative_error
    decisive = (None,) * 3 if exact is None else (exact.logits, exact.divergence, exact.maps)
    checks = [check_value(*_agreement(comparison.wording), agreement, ">=", gates.fp32_agreement, "share")]
    names = _fp32_names(comparison.wording)
    for (key, name, unit), bound, figure, sample in zip(names, bounds, plain, decisive, strict=True):
        if key == "fp32_map_error" and (lost := _lost(key, name, comparison, bound)) is not None:
            checks.append(lost)
        elif sample is None:
            checks.append(check_value(key, name, figure, "<=", bound, unit))
        else:
            checks.append(_check_hardest(key, name, sample, unit))
    return tuple(checks)


def _lost(key: str, name: str, comparison: Comparison, bound: float) -> Check | None:
    """Return the check of a file without a map, which fails if the reference has one; None for a file with a map."""
    if comparison.maps is not None:
        return None
    if not comparison.lost_map:
        return check_value(key, name, None, "<=", bound, "error", _NO_MAP)
    return Check(key, name, None, "<=", bound, "error", "failed", reason=_LOST_MAP)


def _check_hardest(key: str, name: str, decisive: WorstCase, unit: Unit = "error") -> Check:
    reason = None
    if decisive.outcome == "inconclusive":
        reason = (
            f"since float32 alone explains up to {decisive.rounding:.0e} on this sample: the network is "
            "ill-conditioned there"
        )
    return Check(key, name, decisive.error, "<=", decisive.bound, unit, decisive.outcome, reason=reason)


def _check_predictions(role: str, comparison: Comparison, bounds: FidelityBounds) -> list[Check]:
    n, intervals = comparison.n, comparison.intervals
    wording = comparison.wording
    unit, scale = accuracy_difference(wording)
    loss, interval = comparison.accuracy_drop, intervals.get("accuracy_drop")
    if loss is not None:
        loss = round(loss * scale, 12)  # 100 × 0.07 is above 7
    if interval is not None:
        interval = Interval(interval.low * scale, interval.high * scale)
    drop = Estimate(loss, interval, n, n, worst=scale)
    key, bound = f"{role}_accuracy_drop", bounds.accuracy_drop_points * scale / 100
    unlabeled = "the samples have no labels" if drop.measured is None else None
    checks = [check_sample(key, f"{role} {wording.accuracy} drop", drop, "<=", bound, unit, unlabeled)]
    if drop.measured is None:
        kept = Estimate(comparison.agreement, intervals["agreement"], n, n, worst=0.0)
        bound = bounds.agreement
        checks.append(check_sample(f"{role}_agreement", f"{role} {wording.agreement}", kept, ">=", bound, "share"))
    capped = Estimate(comparison.divergence_capped, intervals["divergence_capped"], n, n, worst=1.0)
    name, unit = f"{role} {wording.divergence}, mean", _divergence_unit(wording)
    checks.append(check_sample(f"{role}_divergence", name, capped, "<=", bounds.divergence, unit))
    away = Estimate(comparison.logits_distance, intervals["logits_distance"], n, n, worst=1.0)
    key, bound = f"{role}_logits_distance", bounds.logits_distance
    checks.append(check_sample(key, f"{role} {wording.outputs} distance, mean", away, "<=", bound, "share"))
    return checks


def _check_maps(role: str, comparison: Comparison, bounds: FidelityBounds) -> list[Check]:
    maps, n = comparison.maps, comparison.n
    named: tuple[tuple[str, str, float, Relation, Unit], ...] = (
        (f"{role}_map_pearson_mean", f"{role} map Pearson, mean", bounds.map_pearson_mean, ">=", "correlation"),
        (f"{role}_map_pearson_p5", f"{role} map Pearson, 5th percentile", bounds.map_pearson_p5, ">=", "correlation"),
        (f"{role}_map_scale_error", f"{role} map scale error, mean", bounds.map_scale_error, "<=", "share"),
    )
    if maps is None:
        reason = _LOST_MAP if comparison.lost_map else _NO_MAP
        outcome: Outcome = "failed" if comparison.lost_map else "not measured"
        return [
            Check(key, name, None, relation, bound, unit, outcome, reason=reason)
            for key, name, bound, relation, unit in named
        ]
    constant = None if maps.n_compared else "every map is constant"
    return [
        check_sample(key, name, sample, relation, bound, unit, constant)
        for (key, name, bound, relation, unit), sample in zip(named, _map_samples(maps, n), strict=True)
    ]


def _map_samples(maps: MapComparison, n: int) -> tuple[Estimate, Estimate, Estimate]:
    mean, p5, scale = (maps.intervals.get(name) for name in ("pearson_mean", "pearson_p5", "scale_error"))
    return (
        Estimate(maps.pearson_mean, mean, maps.n_compared, n, worst=-1.0),
        Estimate(maps.pearson_p5, p5, maps.n_compared, n, fewest=fewest_for_percentile(5)),
        Estimate(maps.scale_error, scale, n, n, worst=1.0),
    )
