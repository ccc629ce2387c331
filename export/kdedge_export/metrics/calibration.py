"""Whether a probability of 0.8 means right in 8 of 10 cases, and the temperature that makes it so.

The temperature is fitted on pictures of its own; the error is measured on others, before and after.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kdedge_export.metrics import agreement
from kdedge_export.metrics.confidence import Interval, interval_of, mean_interval
from kdedge_runtime.model import softmax
from kdedge_runtime.util.arrays import Floats, Integers

__all__ = ["BINS", "HIGHEST", "LOWEST", "Calibration", "calibration", "expected_calibration_error", "fit_temperature"]

BINS, IMAGES_A_BIN = 15, 25
"""At most, and at least."""
_SIMULATIONS = 200
LOWEST, HIGHEST = 0.05, 20.0
_STEPS = 60

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Calibration:
    """How far a model's probabilities are from the truth."""

    n: int
    """Images measured on; none of them has fitted the temperature."""
    temperature: float
    """What the model file divides the logits by."""
    ece_before: float
    """Expected calibration error in [0, 1] of `softmax(logits)`."""
    ece: float
    """The same of `softmax(logits / temperature)`, which is what the device shows."""
    nll_before: float
    """Mean negative log-likelihood of the right class, in nats."""
    nll: float
    ece_by_chance: float
    """What a model with these probabilities would have on so many images if they were true."""
    intervals: Mapping[str, Interval | None]
    """Of all but the last; those of the errors lean upwards, since images that are drawn twice add to the distance."""


def calibration(logits: Floats, targets: Integers, temperature: float) -> Calibration:
    """Measure the calibration of logits `[N, K]` whose right classes are int64 `[N]`."""
    right = agreement.is_right(logits, targets)
    sure_before, sure = (_confidence(logits, value) for value in (1.0, temperature))

    def interval(confidence: Scores) -> Interval | None:
        return interval_of(lambda index: expected_calibration_error(confidence[index], right[index]), len(right))

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
    """Mean distance between confidence and accuracy over bins of equally many images, debiased, in [0, 1].

    Bins of equal mass instead of equal width leave none with a handful of images (Nguyen and O'Connor, EMNLP 2015).
    Even a perfect model has some distance in every bin, by chance. What chance adds is estimated and taken off, as by
    Kumar et al. (Verified Uncertainty Calibration, NeurIPS 2019) for the absolute error: the expected distance, if a
    bin's accuracy were measured again with its binomial error, less the distance. This finds the error of a model
    that has one; of a perfect model about half of the chance remains (see `Calibration.ece_by_chance`).

    Args:
        confidence: `[N]`, the probability of the answer.
        right: `[N]`, 1.0 where the answer is right.
        bins: how many; None takes 15, or fewer where they would have less than 25 images.
    """
    order = np.argsort(confidence, kind="stable")
    parts = bins or max(1, min(BINS, len(order) // IMAGES_A_BIN))
    starts = np.arange(parts) * len(order) // parts
    sizes = np.diff([*starts, len(order)])
    accuracy, mean = (np.add.reduceat(values[order], starts) / sizes for values in (right, confidence))
    distance, spread = np.abs(accuracy - mean), np.sqrt(accuracy * (1 - accuracy) / sizes)
    debiased = 2 * distance - [_folded_mean(*bin) for bin in zip(distance, spread, strict=True)]
    return float(np.clip((sizes * debiased).sum() / len(order), 0.0, 1.0))


def fit_temperature(logits: Floats, targets: Integers) -> float:
    """The temperature that makes the right classes most likely (Guo et al., ICML 2017, section 4.2).

    Args:
        logits: `[N, K]`.
        targets: int64 `[N]`, the right classes.

    Returns:
        In [0.05, 20]. An end where none between is best: the lower as where every answer is right, as the likelihood
        then grows without end as the temperature falls; the upper where right classes score no higher than others.
    """
    low, high = math.log(LOWEST), math.log(HIGHEST)
    # The likelihood is concave in 1 / temperature, so it has one maximum on any scale: golden-section search.
    ratio = (math.sqrt(5) - 1) / 2
    for _ in range(_STEPS):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        # Of two that are exactly as likely, as where all is sure, the lower one.
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
    return float(np.mean([expected_calibration_error(confidence, right) for right in draws]))


def _confidence(logits: Floats, temperature: float) -> Scores:
    return np.asarray(softmax(logits / temperature).max(axis=1), dtype=np.float64)


def _nll(logits: Floats, targets: Integers, temperature: float) -> Scores:
    """Negative log-likelihood of each image's right class, `[N]`, in nats."""
    scaled = logits.astype(np.float64) / temperature
    shifted = scaled - scaled.max(axis=1, keepdims=True)
    own = np.take_along_axis(shifted, targets[:, None], axis=1)[:, 0]
    return np.asarray(np.log(np.exp(shifted).sum(axis=1)) - own)


def _folded_mean(mean: float, spread: float) -> float:
    """The mean of |x| for a normal x."""
    if spread == 0:
        return abs(mean)
    z = mean / spread
    density = spread * math.sqrt(2 / math.pi) * math.exp(-0.5 * z * z)
    return density + mean * math.erf(z / math.sqrt(2))
