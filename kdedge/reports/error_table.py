"""Mean absolute error of regressions by the measured value."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kdedge.pipelines.run_predictions import RunPredictions
from kdedge_export.html.text import plain_number
from kdedge_export.metrics.scores import Scores
from kdedge_runtime.util.arrays import Integers, Targets

__all__ = ["ErrorRow", "error_rows", "quantile_groups"]

_MAX_GROUPS, _MIN_SAMPLES = 5, 10
_FULL_TINT = 0.5
"""Change relative to the baseline's error that has the full color."""


@dataclass(frozen=True)
class ErrorRow:
    """Mean absolute error of every run on the samples of one range of measured values."""

    low: float
    """Smallest measured value."""
    high: float
    samples: int
    errors: tuple[float, ...]
    """Mean absolute error of each run in the unit of the target; NaN with a prediction that is not finite. The first
    run is the baseline."""

    @property
    def label(self) -> str:
        """Range of the measured values, such as `250 … 1,154`."""
        low, high = plain_number(self.low), plain_number(self.high)
        return low if low == high else f"{low} … {high}"

    @property
    def changes(self) -> tuple[float, ...]:
        """Difference of every other run to the baseline; negative is better."""
        return tuple(error - self.errors[0] for error in self.errors[1:])

    @property
    def tints(self) -> tuple[int, ...]:
        """Strength of the color of each change, in [0, 100]."""
        return tuple(_tint(change, _FULL_TINT * self.errors[0]) for change in self.changes)


def error_rows(predictions: Sequence[RunPredictions]) -> list[ErrorRow]:
    """Return a row for all samples, then one per range of measured values, lowest first.

    Args:
        predictions: predictions of the runs on the same samples; the first run is the baseline.
    """
    measured = predictions[0].samples.targets.astype(np.float64)
    errors = np.stack([np.abs(one.predictions.logits[:, 0].astype(np.float64) - measured) for one in predictions])
    errors[~np.isfinite(errors)] = np.nan
    groups = quantile_groups(measured)
    members = [groups == group for group in np.unique(groups)]
    everything = np.ones(len(measured), dtype=bool)
    return [_row(measured[some], errors[:, some]) for some in (everything, *(members if len(members) > 1 else ()))]


def quantile_groups(values: Targets) -> Integers:
    """Divide samples by quantiles of their values into at most five groups of about the same size, int64 `[N]`.

    Equal values are in the same group, so that there may be fewer groups. There are as many as leave ten samples for
    each on average, and at least one.

    Args:
        values: measured values `[N]`.
    """
    count = min(_MAX_GROUPS, max(1, len(values) // _MIN_SAMPLES))
    bounds = np.unique(np.quantile(values, np.arange(1, count) / count, method="inverted_cdf"))
    groups: Integers = np.unique(np.searchsorted(bounds, values, side="left"), return_inverse=True)[1].astype(np.int64)
    return groups


def _row(measured: Scores, errors: Scores) -> ErrorRow:
    return ErrorRow(float(measured.min()), float(measured.max()), len(measured), tuple(errors.mean(axis=1).tolist()))


def _tint(change: float, full: float) -> int:
    if not change or math.isnan(change):
        return 0
    return 100 if abs(change) >= full else round(100 * abs(change) / full)
