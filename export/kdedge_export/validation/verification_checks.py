"""Checks of verification: true accepts that a file loses against the fp32 file."""

from collections.abc import Sequence

from kdedge_export.metrics.confidence import Interval
from kdedge_export.metrics.verification import MAX_VERIFIED, FileVerification, Verification
from kdedge_export.validation.check import Check, Estimate, check_sample
from kdedge_export.validation.gates import Gates

__all__ = ["check_verification"]

_WORST_DROP = 200.0
"""Effect in points of an unseen sample whose genuine pairs are all lost: each pair has two samples."""


def check_verification(found: Verification | None, roles: Sequence[str], gates: Gates) -> list[Check]:
    """Check that files lose few true accepts at 1% false accepts against the fp32 file.

    Args:
        found: measured verification; None without pairs of both kinds.
        roles: files with embeddings but the fp32 file.
        gates: the bounds.
    """
    rows = {} if found is None else {row.model: row for row in found.files}
    return [_check_drop(role, rows.get(role), 0 if found is None else found.samples, gates) for role in roles]


def _check_drop(role: str, row: FileVerification | None, samples: int, gates: Gates) -> Check:
    drop, interval = (None, None) if row is None else (row.drop, row.intervals["drop"])
    key, name = f"{role}_true_accept_drop", f"{role} drop of true accepts at 1% false accepts"
    measured = None if drop is None else 100 * drop
    points = None if interval is None else Interval(100 * interval.low, 100 * interval.high)
    sample = Estimate(measured, points, samples, samples, worst=_WORST_DROP, most=MAX_VERIFIED)
    reason = "there are no labels with two samples of a class and two classes" if drop is None else None
    return check_sample(key, name, sample, "<=", gates.max_true_accept_drop_points, "points", reason)
