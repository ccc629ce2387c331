"""Checks of familiarity: known samples that a file rejects, and unfamiliar ones that it detects."""

from dataclasses import replace

from kdedge_export.familiarity.threshold import ALLOWED, fewest_known
from kdedge_export.metrics.confidence import Interval
from kdedge_export.metrics.unfamiliar import DetectionDrop, Recognition, Rejection
from kdedge_export.validation.check import Check, Estimate, check_sample
from kdedge_export.validation.gates import Gates

__all__ = ["check_recognition"]


def check_recognition(found: Recognition | None, gates: Gates) -> list[Check]:
    """Check every file with a threshold; empty without one.

    The fp32 file fails if it rejects significantly more known samples than allowed. The other files must not reject
    more of them, and must detect as many unfamiliar samples, as the fp32 file.

    Args:
        found: measured recognition; None without familiarity.
        gates: the bounds.
    """
    if found is None or found.threshold is None:
        return []
    checks = [_check_known(row, gates) for row in found.known]
    return checks + [_check_drop(row, gates) for row in found.drops]


def _check_known(row: Rejection, gates: Gates) -> Check:
    if row.rise is None:
        return _check_rejected(row)
    sample = _points(row.rise, row.intervals["rise"], row.samples)
    key, name = f"{row.model}_known_rejected_rise", f"{row.model} further known samples called unknown"
    return check_sample(key, name, sample, "<=", gates.max_unknown_change_points, "points")


def _check_rejected(row: Rejection) -> Check:
    """Check the rejected share, which fails if its whole interval is above the bound.

    The fitted threshold uses up the allowed share, so the upper end exceeds it on half of all further samples.
    """
    interval, needed = row.intervals["rejected"], fewest_known()
    check = Check(
        f"{row.model}_known_rejected",
        f"{row.model} known samples called unknown",
        row.rejected,
        "<=",
        ALLOWED,
        "share",
        "passed",
        interval,
    )
    if interval is not None and interval.low > ALLOWED:
        return replace(check, outcome="failed", reason="more than sampling explains")
    if row.samples < needed:
        reason = f"with {row.samples} samples; {needed} are needed, as for a threshold"
        return replace(check, outcome="inconclusive", samples_needed=needed, reason=reason)
    return check if row.rejected <= ALLOWED else replace(check, reason="no more than sampling explains")


def _check_drop(row: DetectionDrop, gates: Gates) -> Check:
    sample = _points(row.drop, row.interval, row.samples)
    key, name = f"{row.model}_detection_drop", f"{row.model} detection drop, unfamiliar samples"
    return check_sample(key, name, sample, "<=", gates.max_unknown_change_points, "points")


def _points(share: float, interval: Interval | None, samples: int) -> Estimate:
    scaled = None if interval is None else Interval(100 * interval.low, 100 * interval.high)
    return Estimate(100 * share, scaled, samples, samples, worst=100.0)
