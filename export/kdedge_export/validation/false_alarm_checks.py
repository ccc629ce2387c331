"""Checks of false alarms on background recordings."""

from collections.abc import Sequence
from dataclasses import replace

from kdedge_export.metrics.false_alarms import FalseAlarms
from kdedge_export.validation.check import Check, check_value
from kdedge_export.validation.gates import Gates

__all__ = ["check_false_alarms"]


def check_false_alarms(rows: Sequence[FalseAlarms], gates: Gates) -> list[Check]:
    """Check the rate of every file and the upper end of its interval; empty without a bound.

    Args:
        rows: false alarms of the files.
        gates: the bounds.
    """
    most = gates.false_alarms_per_hour
    return [] if most is None else [_check(row, most) for row in rows]


def _check(row: FalseAlarms, most: float) -> Check:
    counted = f"{row.alarms} in {row.hours:.2f} h"
    key, name = f"{row.model}_false_alarms", f"{row.model} false alarms"
    check = replace(check_value(key, name, row.per_hour, "<=", most, "per hour", counted), interval=row.interval)
    if check.outcome != "passed" or row.interval.high <= most:
        return check
    return replace(check, outcome="inconclusive", reason=f"with {counted}; longer recordings narrow the interval")
