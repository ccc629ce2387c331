"""Calibration against a loop, a simulation and scipy: what it measures and what it fits."""

import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from kdedge_export.validate.calibration import (
    BINS,
    HIGHEST,
    LOWEST,
    calibration,
    expected_calibration_error,
    fit_temperature,
)


def answers(n: int, seed: int, sharpness: float = 1.0, classes: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Logits and right classes drawn from their own softmax: calibrated at a temperature of `sharpness`."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (n, classes))
    probabilities = np.exp(log_softmax(logits, axis=1))
    targets = np.array([rng.choice(classes, p=row) for row in probabilities])
    return (logits * sharpness).astype(np.float32), targets


def confidence(logits: np.ndarray) -> np.ndarray:
    return np.exp(log_softmax(logits.astype(np.float64), axis=1)).max(axis=1)


def plain_error(sure: np.ndarray, right: np.ndarray) -> float:
    """The textbook's: bins of equally many images, no correction."""
    total = 0.0
    ranked = sorted(range(len(sure)), key=lambda i: sure[i])
    for number in range(BINS):
        part = ranked[number * len(sure) // BINS : (number + 1) * len(sure) // BINS]
        total += len(part) * abs(sum(right[i] for i in part) / len(part) - sum(sure[i] for i in part) / len(part))
    return total / len(sure)


def test_with_many_images_it_is_the_textbooks_error() -> None:
    logits, targets = answers(60_000, 0, sharpness=2.0)
    sure, right = confidence(logits), (logits.argmax(axis=1) == targets).astype(float)
    expected = plain_error(sure, right)
    assert expected > 0.1
    assert expected_calibration_error(sure, right) == pytest.approx(expected, abs=1e-3)


def test_by_hand() -> None:
    # Two bins of two: 0.5 right at 0.6 (distance 0.1), all right at 0.9 (distance 0.1, no spread).
    sure, right = np.array([0.6, 0.6, 0.9, 0.9]), np.array([1.0, 0.0, 1.0, 1.0])
    spread = math.sqrt(0.25 / 2)
    z = 0.1 / spread
    folded = spread * math.sqrt(2 / math.pi) * math.exp(-z * z / 2) + 0.1 * math.erf(z / math.sqrt(2))
    expected = max(0.0, (2 * (0.2 - folded) + 2 * 0.1) / 4)
    assert expected_calibration_error(sure, right, bins=2) == pytest.approx(expected)


def test_chance_is_taken_off() -> None:
    """On few images the textbook's error of a calibrated model is far from 0, of an overconfident one too large."""
    means = {}
    for sharpness in (1.0, 2.0):
        plain, debiased = [], []
        for seed in range(40):
            logits, targets = answers(200, seed, sharpness)
            sure, right = confidence(logits), (logits.argmax(axis=1) == targets).astype(float)
            plain.append(plain_error(sure, right))
            debiased.append(expected_calibration_error(sure, right))
        means[sharpness] = np.mean(plain), np.mean(debiased)
    assert means[1.0][0] > 0.09 and means[1.0][1] < 0.5 * means[1.0][0]
    logits, targets = answers(60_000, 99, 2.0)
    truth = plain_error(confidence(logits), (logits.argmax(axis=1) == targets).astype(float))
    assert abs(means[2.0][1] - truth) < 0.5 * abs(means[2.0][0] - truth)


def test_it_says_what_chance_alone_would_give() -> None:
    found = [calibration(*answers(200, seed), temperature=1.0) for seed in range(30)]
    assert np.mean([one.ece for one in found]) == pytest.approx(np.mean([one.ece_by_chance for one in found]), abs=0.01)


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
def test_the_fitted_temperature_is_scipys_and_the_true_one(sharpness: float) -> None:
    logits, targets = answers(5000, 3, sharpness)

    def loss(temperature: float) -> float:
        scaled = log_softmax(logits.astype(np.float64) / temperature, axis=1)
        return float(-scaled[np.arange(len(targets)), targets].mean())

    expected = minimize_scalar(loss, bounds=(0.05, 20), method="bounded", options={"xatol": 1e-9}).x
    fitted = fit_temperature(logits, targets)
    assert fitted == pytest.approx(expected, rel=1e-4)
    assert fitted == pytest.approx(sharpness, rel=0.1)


def test_no_temperature_is_best_where_every_answer_is_right() -> None:
    logits, _ = answers(100, 4)
    assert fit_temperature(logits, logits.argmax(axis=1)) == LOWEST


def test_no_temperature_is_best_where_right_classes_score_lower_than_others() -> None:
    logits, _ = answers(100, 4)
    assert fit_temperature(logits, logits.argmin(axis=1)) == HIGHEST


def test_the_temperature_mends_what_it_is_meant_to() -> None:
    logits, targets = answers(4000, 5, sharpness=3.0)
    fitted = fit_temperature(logits[::2], targets[::2])
    found = calibration(logits[1::2], targets[1::2], fitted)
    assert (found.n, found.temperature) == (2000, fitted)
    assert found.ece_before > 0.1 > 0.03 > found.ece
    assert found.nll < found.nll_before and found.ece < 2 * found.ece_by_chance
    ends = found.intervals["ece_before"]
    assert ends is not None and ends.low <= found.ece_before <= ends.high


def test_few_images_are_one_bin() -> None:
    assert expected_calibration_error(np.array([0.9]), np.array([1.0])) == pytest.approx(0.1)
    assert expected_calibration_error(np.full(5, 0.8), np.ones(5)) == pytest.approx(0.2)
