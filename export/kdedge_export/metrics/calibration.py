"""Confidence calibration: expected calibration error and temperature scaling.

The temperature is fitted on one set of samples. The error is measured on another, before and after.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from kdedge_export.metrics import agreement
from kdedge_export.metrics.confidence import Interval, interval_of, mean_interval
from kdedge_export.metrics.scores import Scores
from kdedge_runtime.util.arrays import Floats, Integers, Targets, softmax

__all__ = ["BINS", "HIGHEST", "LOWEST", "Calibration", "calibration", "expected_calibration_error", "fit_temperature"]

BINS, SAMPLES_A_BIN = 15, 25
"""Maximum number of bins, and minimum number of samples per bin."""
_SIMULATIONS = 200
LOWEST, HIGHEST = 0.05, 20.0
_STEPS = 60
_erf = np.vectorize(math.erf, otypes=[np.float64])


@dataclass(frozen=True)
class Calibration:
    """Calibration of a model's predicted probabilities."""

    n: int
    """Number of samples measured; none of them was used to fit the temperature."""
    temperature: float
    """Temperature stored in the model file, which divides the logits."""
    ece_before: float
    """Expected calibration error in [0, 1] of `softmax(logits)`."""
    ece: float
    """Expected calibration error in [0, 1] of `softmax(logits / temperature)`, the probabilities reported on the
    device."""
    nll_before: float
    """Mean negative log-likelihood of the target class, in nats."""
    nll: float
    ece_by_chance: float
    """Expected calibration error of a perfectly calibrated model with these probabilities, on as many samples."""
    intervals: Mapping[str, Interval | None]
    """95% intervals of all fields except the last. Those of the errors are biased upwards, since repeated samples add
    to the distance."""


def calibration(logits: Floats, targets: Targets, temperature: float) -> Calibration:
    """Compute the calibration of logits `[N, K]` given target classes int64 `[N]`."""
    right = agreement.is_right(logits, targets)
    sure_before, sure = (_confidence(logits, value) for value in (1.0, temperature))

    def interval(confidence: Scores) -> Interval | None:
        order = np.argsort(confidence, kind="stable")
        rank, confidence, flags = np.argsort(order), confidence[order], right[order]

        def errors(index: Integers) -> Scores:
            ranks = np.sort(rank[index], axis=1)  # faster than sorting the confidence of each row
            return _errors(confidence[ranks], flags[ranks])

        return interval_of(errors, len(right))

    nll_before, nll = (_nll(logits, targets, value) for value in (1.0, temperature))
    return Calibration(
        n=len(right),
        temperature=temperature,
        ece_before=expected_calibration_error(sure_before, right),
        ece=expected_calibration_error(sure, right),
        nll_before=float(nll_before.mean()),
        nll=float(nll.mean()),
        ece_by_chance=_by_chance(sure),
        intervals={
            "ece_before": interval(sure_before),
            "ece": interval(sure),
            "nll_before": mean_interval(nll_before),
            "nll": mean_interval(nll),
        },
    )


def expected_calibration_error(confidence: Scores, right: Scores, bins: int | None = None) -> float:
    """Compute the debiased expected calibration error over equal-mass bins, in [0, 1].

    The error is the mean distance between confidence and accuracy. Bins of equal mass, unlike bins of equal width, all
    hold enough samples (Nguyen and O'Connor, EMNLP 2015). Even a perfectly calibrated model has a nonzero distance in
    every bin by chance. This bias is estimated and subtracted, as by Kumar et al. (Verified Uncertainty Calibration,
    NeurIPS 2019) for the absolute error. The estimate is the expected distance under binomial noise of a bin's
    accuracy, minus the distance. The error of a miscalibrated model is recovered; for a perfectly calibrated one about
    half of the bias remains (see `Calibration.ece_by_chance`).

    Args:
        confidence: `[N]`, the probability of the predicted class.
        right: `[N]`, 1.0 where the prediction is correct.
        bins: number of bins; None uses 15, or fewer to keep at least 25 samples in each.
    """
    order = np.argsort(confidence, kind="stable")
    return float(_errors(confidence[order], right[order], bins))


def fit_temperature(logits: Floats, targets: Targets) -> float:
    """Fit the softmax temperature by maximum likelihood (Guo et al., ICML 2017, section 4.2).

    Args:
        logits: `[N, K]`.
        targets: int64 `[N]`, the target classes.

    Returns:
        The temperature in [0.05, 20]. The lower end if every prediction is correct, since the likelihood then increases
            as the temperature falls. The upper end if target classes score no higher than others.
    """
    low, high = math.log(LOWEST), math.log(HIGHEST)
    # The likelihood is concave in 1 / temperature, so it has a single maximum: golden-section search.
    ratio = (math.sqrt(5) - 1) / 2
    for _ in range(_STEPS):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        # Ties, which occur when all probabilities are saturated, resolve to the lower temperature.
        if _nll(logits, targets, math.exp(left)).sum() <= _nll(logits, targets, math.exp(right)).sum():
            high = right
        else:
            low = left
    best = math.exp((low + high) / 2)
    if best < LOWEST * 1.01:
        return LOWEST
    return HIGHEST if best > HIGHEST / 1.01 else best


def _by_chance(confidence: Scores) -> float:
    generator = np.random.default_rng(0)
    draws = (generator.random((_SIMULATIONS, len(confidence))) < confidence).astype(np.float64)
    order = np.argsort(confidence, kind="stable")
    return float(_errors(confidence[order], draws[:, order]).mean())


def _errors(confidence: Scores, right: Scores, bins: int | None = None) -> Scores:
    """Compute the debiased error of rows `[..., N]` in order of confidence; see `expected_calibration_error`."""
    n = right.shape[-1]
    parts = bins or max(1, min(BINS, n // SAMPLES_A_BIN))
    starts = np.arange(parts) * n // parts
    sizes = np.diff([*starts, n])
    accuracy, mean = (np.add.reduceat(values, starts, axis=-1) / sizes for values in (right, confidence))
    distance, spread = np.abs(accuracy - mean), np.sqrt(accuracy * (1 - accuracy) / sizes)
    debiased = 2 * distance - _folded_mean(distance, spread)
    return np.asarray(np.clip((sizes * debiased).sum(axis=-1) / n, 0.0, 1.0))


def _confidence(logits: Floats, temperature: float) -> Scores:
    return np.asarray(softmax(logits / temperature).max(axis=1), dtype=np.float64)


def _nll(logits: Floats, targets: Targets, temperature: float) -> Scores:
    """Compute the negative log-likelihood of each sample's target class, `[N]`, in nats."""
    scaled = logits.astype(np.float64) / temperature
    shifted = scaled - scaled.max(axis=1, keepdims=True)
    own = np.take_along_axis(shifted, targets[:, None], axis=1)[:, 0]
    return np.asarray(np.log(np.exp(shifted).sum(axis=1)) - own)


def _folded_mean(mean: Scores, spread: Scores) -> Scores:
    """Return the mean of |x| for normally distributed x."""
    z = np.divide(mean, spread, out=np.full_like(mean, np.inf), where=spread > 0)
    density = spread * math.sqrt(2 / math.pi) * np.exp(-0.5 * z * z)
    return np.asarray(density + mean * _erf(z / math.sqrt(2)))
