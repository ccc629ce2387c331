"""Calibration compared with plain loops, a simulation and scipy."""

import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from scipy.stats import foldnorm

from kdedge_export.metrics.calibration import (
    _SIMULATIONS as SIMULATIONS,
)
from kdedge_export.metrics.calibration import (
    BINS,
    HIGHEST,
    LOWEST,
    calibration,
    expected_calibration_error,
    fit_temperature,
)
from kdedge_export.metrics.confidence import interval_of, mean_interval


def predictions(n: int, seed: int, sharpness: float = 1.0, classes: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Draw logits and targets from their own softmax: calibrated at a temperature of `sharpness`."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (n, classes))
    probabilities = np.exp(log_softmax(logits, axis=1))
    targets = np.array([rng.choice(classes, p=row) for row in probabilities])
    return (logits * sharpness).astype(np.float32), targets


def confidence(logits: np.ndarray) -> np.ndarray:
    return np.exp(log_softmax(logits.astype(np.float64), axis=1)).max(axis=1)


def plain_error(sure: np.ndarray, right: np.ndarray) -> float:
    """Compute the expected calibration error over equal-mass bins, without correction."""
    total = 0.0
    ranked = sorted(range(len(sure)), key=lambda i: sure[i])
    for number in range(BINS):
        part = ranked[number * len(sure) // BINS : (number + 1) * len(sure) // BINS]
        total += len(part) * abs(sum(right[i] for i in part) / len(part) - sum(sure[i] for i in part) / len(part))
    return total / len(sure)


def test_error_matches_the_plain_definition_with_many_images() -> None:
    logits, targets = predictions(60_000, 0, sharpness=2.0)
    sure, right = confidence(logits), (logits.argmax(axis=1) == targets).astype(float)
    expected = plain_error(sure, right)
    assert expected > 0.1
    assert expected_calibration_error(sure, right) == pytest.approx(expected, abs=1e-3)


def test_error_matches_a_hand_computed_value() -> None:
    # Two bins of two: accuracy 0.5 at 0.6 (distance 0.1), accuracy 1 at 0.9 (distance 0.1, no variance).
    sure, right = np.array([0.6, 0.6, 0.9, 0.9]), np.array([1.0, 0.0, 1.0, 1.0])
    spread = math.sqrt(0.25 / 2)
    z = 0.1 / spread
    folded = spread * math.sqrt(2 / math.pi) * math.exp(-z * z / 2) + 0.1 * math.erf(z / math.sqrt(2))
    expected = max(0.0, (2 * (0.2 - folded) + 2 * 0.1) / 4)
    assert expected_calibration_error(sure, right, bins=2) == pytest.approx(expected)


def test_chance_bias_is_subtracted() -> None:
    """Few images bias the plain error upward, both for a calibrated and an overconfident model."""
    means = {}
    for sharpness in (1.0, 2.0):
        plain, debiased = [], []
        for seed in range(40):
            logits, targets = predictions(200, seed, sharpness)
            sure, right = confidence(logits), (logits.argmax(axis=1) == targets).astype(float)
            plain.append(plain_error(sure, right))
            debiased.append(expected_calibration_error(sure, right))
        means[sharpness] = np.mean(plain), np.mean(debiased)
    assert means[1.0][0] > 0.09 and means[1.0][1] < 0.5 * means[1.0][0]
    logits, targets = predictions(60_000, 99, 2.0)
    truth = plain_error(confidence(logits), (logits.argmax(axis=1) == targets).astype(float))
    assert abs(means[2.0][1] - truth) < 0.5 * abs(means[2.0][0] - truth)


def test_ece_by_chance_matches_calibrated_models() -> None:
    found = [calibration(*predictions(200, seed), temperature=1.0) for seed in range(30)]
    assert np.mean([one.ece for one in found]) == pytest.approx(np.mean([one.ece_by_chance for one in found]), abs=0.01)


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
def test_fitted_temperature_matches_scipy_and_the_true_one(sharpness: float) -> None:
    logits, targets = predictions(5000, 3, sharpness)

    def loss(temperature: float) -> float:
        scaled = log_softmax(logits.astype(np.float64) / temperature, axis=1)
        return float(-scaled[np.arange(len(targets)), targets].mean())

    expected = minimize_scalar(loss, bounds=(0.05, 20), method="bounded", options={"xatol": 1e-9}).x
    fitted = fit_temperature(logits, targets)
    assert fitted == pytest.approx(expected, rel=1e-4)
    assert fitted == pytest.approx(sharpness, rel=0.1)


def test_all_correct_predictions_give_the_lowest_temperature() -> None:
    logits, _ = predictions(100, 4)
    assert fit_temperature(logits, logits.argmax(axis=1)) == LOWEST


def test_lowest_target_scores_give_the_highest_temperature() -> None:
    logits, _ = predictions(100, 4)
    assert fit_temperature(logits, logits.argmin(axis=1)) == HIGHEST


def test_temperature_scaling_reduces_the_error() -> None:
    logits, targets = predictions(4000, 5, sharpness=3.0)
    fitted = fit_temperature(logits[::2], targets[::2])
    found = calibration(logits[1::2], targets[1::2], fitted)
    assert (found.n, found.temperature) == (2000, fitted)
    assert found.ece_before > 0.1 > 0.03 > found.ece
    assert found.nll < found.nll_before and found.ece < 2 * found.ece_by_chance
    ends = found.intervals["ece_before"]
    assert ends is not None and ends.low <= found.ece_before <= ends.high


def error_by_hand(sure: list[float], right: list[float]) -> float:
    """Compute the debiased error: twice the distance minus the mean distance of a second draw."""
    bins = max(1, min(BINS, len(sure) // 25))
    ranked, total = sorted(range(len(sure)), key=lambda i: sure[i]), 0.0
    for number in range(bins):
        part = ranked[number * len(sure) // bins : (number + 1) * len(sure) // bins]
        accuracy, mean = (sum(values[i] for i in part) / len(part) for values in (right, sure))
        distance, spread = abs(accuracy - mean), math.sqrt(accuracy * (1 - accuracy) / len(part))
        again = distance if spread == 0 else float(foldnorm(distance / spread, scale=spread).mean())
        total += len(part) * (2 * distance - again)
    return min(max(total / len(sure), 0.0), 1.0)


@pytest.mark.parametrize("n", [40, 137, 400])
def test_all_fields_match_plain_loops(n: int) -> None:
    logits, targets = predictions(n, 6, sharpness=2.5)
    found = calibration(logits, targets, 1.75)
    right = [float(row.argmax() == target) for row, target in zip(logits, targets, strict=True)]
    before, after = confidence(logits), confidence(logits / 1.75)
    losses = [
        np.array([-log_softmax(row.astype(float) / t)[target] for row, target in zip(logits, targets, strict=True)])
        for t in (1.0, 1.75)
    ]
    flags = np.array(right)
    assert (found.n, found.temperature) == (n, 1.75)
    assert found.ece_before == pytest.approx(error_by_hand(before.tolist(), right), abs=1e-6)
    assert found.ece == pytest.approx(error_by_hand(after.tolist(), right), abs=1e-6)
    assert (found.nll_before, found.nll) == pytest.approx((losses[0].mean(), losses[1].mean()), rel=1e-5)
    assert set(found.intervals) == {"ece_before", "ece", "nll_before", "nll"}
    for name, scores in (("nll_before", losses[0]), ("nll", losses[1])):
        ends, expected = found.intervals[name], mean_interval(scores)
        assert ends is not None and expected is not None
        assert (ends.low, ends.high) == pytest.approx((expected.low, expected.high), rel=1e-5)
    for name, sure in (("ece_before", before), ("ece", after)):
        ends = found.intervals[name]
        error = lambda index, sure=sure: expected_calibration_error(sure[index], flags[index])  # noqa: E731
        expected = interval_of(lambda rows, error=error: np.array([error(row) for row in rows]), n)
        assert ends is not None and expected is not None
        assert (ends.low, ends.high) == pytest.approx((expected.low, expected.high), abs=1e-5)


def test_ece_by_chance_is_the_mean_error_of_calibrated_draws() -> None:
    logits, targets = predictions(60, 7)
    sure = confidence(logits)
    drawn = np.random.default_rng(0).random((SIMULATIONS, 60)) < sure
    expected = np.mean([error_by_hand(sure.tolist(), row.astype(float).tolist()) for row in drawn])
    assert calibration(logits, targets, 1.0).ece_by_chance == pytest.approx(expected, abs=2e-3)


def test_equal_confidences_are_binned_in_image_order() -> None:
    """Bins end between equally confident images, the first of them correct."""
    sure = np.random.default_rng(9).choice([0.4, 0.6, 0.8], 1000)
    right = (np.arange(1000) < 500).astype(float)
    assert expected_calibration_error(sure, right) == pytest.approx(
        error_by_hand(sure.tolist(), right.tolist()), abs=1e-12
    )


@pytest.mark.filterwarnings("error")
def test_confident_correct_predictions_have_no_error() -> None:
    assert expected_calibration_error(np.ones(30), np.ones(30)) == 0
    assert expected_calibration_error(np.zeros(30), np.ones(30)) == 1


def test_large_logits_of_one_image_do_not_affect_others() -> None:
    logits = np.array([[1e4, 0], [-1e4, 0], [0, math.log(3)], [1, 1]], np.float32)
    found = calibration(logits, np.array([0, 0, 1, 0]), 2.0)
    before = [0, 1e4, math.log(4 / 3), math.log(2)]
    after = [0, 5e3, math.log(1 + 3**-0.5), math.log(2)]
    assert (found.nll_before, found.nll) == pytest.approx((np.mean(before), np.mean(after)), rel=1e-6)


def test_constant_likelihood_gives_the_lowest_temperature() -> None:
    assert fit_temperature(np.zeros((3, 2), np.float32), np.zeros(3, np.int64)) == LOWEST


@pytest.mark.parametrize("extreme", [0.06, 15.0])
def test_temperatures_near_an_end_are_not_clamped(extreme: float) -> None:
    logits, targets = predictions(4000, 8, sharpness=extreme)
    assert fit_temperature(logits, targets) == pytest.approx(extreme, rel=0.1)
    assert LOWEST < fit_temperature(logits, targets) < HIGHEST


def test_few_images_form_one_bin() -> None:
    assert expected_calibration_error(np.array([0.9]), np.array([1.0])) == pytest.approx(0.1)
    assert expected_calibration_error(np.full(5, 0.8), np.ones(5)) == pytest.approx(0.2)
