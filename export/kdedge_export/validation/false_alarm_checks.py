"""Checks of false alarms on background recordings."""

from collections.abc import Sequence
from dataclasses import replace

from kdedge_export.metrics.false_alarms import FalseAlarms
from kdedge_export.validation.check import Check, check_value
from kdedge_export.validation.gates import Gates

__all__ = ["check_false_alarms"]


def check_false_alarms(rows: Sequence[FalseAlarms], gates: Gates) -> list[Check]:
    """Check the upper end of the interval of every file; empty without a bound.

    Args:
        rows: false alarms of the files.
        gates: the bounds.
    """
    most = gates.false_alarms_per_hour
    return [] if most is None else [_check(row, most) for row in rows]


def _check(row: FalseAlarms, most: float) -> Check:
    reason = f"{row.alarms} in {row.hours:.2f} h; longer recordings narrow the interval"
    key, name = f"{row.model}_false_alarms", f"{row.model} false alarms per hour, at most"
    check = check_value(key, name, row.interval.high, "<=", most, "count", reason)
    return replace(check, interval=row.interval)
