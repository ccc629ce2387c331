"""Checks against what needs no model: the best constant prediction, and evidence outside a region of interest."""

from kdedge_export.metrics.confidence import DIFFERENCE, Interval, mean_interval
from kdedge_export.metrics.localization import Localization
from kdedge_export.metrics.scores import Scores
from kdedge_export.metrics.task_metrics import TaskMetrics
from kdedge_export.validation.check import Check, Estimate, accuracy_difference, check_sample
from kdedge_export.validation.gates import Gates

__all__ = ["check_constant", "check_evidence"]


def check_constant(role: str, right: Scores, constant: Scores, gates: Gates, task: TaskMetrics) -> Check:
    """Check that a model is more often right than the best constant prediction, on the same samples.

    An accuracy of 95% shows nothing if 95% of the samples are of one class.

    Args:
        role: role of the deployed file.
        right: correctness of its predictions, `[N]`, see `TaskMetrics.correct`.
        constant: correctness of the best constant prediction, see `TaskMetrics.constant_correct`.
        gates: the bounds.
        task: metrics of the task; scores without bounds, such as those of R², have an interval by bootstrap.
    """
    gain = right - constant
    unit, scale = accuracy_difference(task.wording)
    interval = mean_interval(gain, None if task.bounds is None else DIFFERENCE, scale=scale)
    sample = Estimate(scale * float(gain.mean()), interval, len(gain), len(gain), worst=-scale)
    key, name = f"{role}_gain_over_constant", f"{role} better than the best constant prediction"
    return check_sample(key, name, sample, ">=", gates.min_gain_over_constant_points * scale / 100, unit)


def check_evidence(role: str, found: Localization | None, samples: int, gates: Gates) -> list[Check]:
    """Check that positive evidence lies in the regions of interest; empty without a bound.

    Args:
        role: role of the deployed file.
        found: localization of its maps; None if no region is known, or there are no maps.
        samples: number of samples with a region.
        gates: the bounds.
    """
    if gates.max_evidence_outside is None:
        return []
    inside = None if found is None else found.intervals["energy_inside"]
    outside = None if inside is None else Interval(1 - inside.high, 1 - inside.low)
    measured = None if found is None else 1 - found.energy_inside
    sample = Estimate(measured, outside, samples, samples, worst=1.0)
    key, name = f"{role}_evidence_outside", f"{role} evidence outside the region of interest"
    reason = "no sample has a region of interest, or the file has no map"
    return [check_sample(key, name, sample, "<=", gates.max_evidence_outside, "share", reason)]
