"""Verification by embeddings: rates, intervals over images, paired drops and degenerate input."""

from dataclasses import astuple

import numpy as np
import pytest
from scipy.optimize import brentq
from sklearn.metrics import roc_curve

from kdedge_export.metrics.confidence import Interval
from kdedge_export.metrics.verification import (
    MAX_VERIFIED,
    FileVerification,
    choose_verified,
    verification,
)


def normalized(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def clustered(
    n: int, classes: int, seed: int, noise: float = 0.8, change: float = 0.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw embeddings `[n, 16]` around fixed centers, the same with further noise, and their classes."""
    centers = normalized(np.random.default_rng(99).normal(size=(classes, 16)))
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, classes, n)
    difficulty = noise * np.exp(rng.normal(0, 0.5, (n, 1)))
    exact = centers[targets] + difficulty * rng.normal(0, 0.25, (n, 16))
    return normalized(exact), normalized(exact + change * rng.normal(0, 0.25, (n, 16))), targets


def of_angles(*degrees: float) -> np.ndarray:
    angles = np.deg2rad(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def measured(embeddings: np.ndarray, classes: np.ndarray) -> FileVerification:
    found = verification({"fp32": embeddings}, "fp32", np.asarray(classes))
    assert found is not None
    return found.files[0]


def independent_rates(
    embeddings: np.ndarray, classes: np.ndarray, counts: np.ndarray | None = None
) -> tuple[float, float]:
    """Compute both rates with scikit-learn, from the pairs of the full matrix."""
    one, other = np.nonzero(np.tri(len(classes), k=-1))
    weights = None if counts is None else counts[one] * counts[other]
    similarity = (embeddings.astype(np.float64)[one] * embeddings[other]).sum(axis=1)
    far, tar, _ = roc_curve(classes[one] == classes[other], similarity, sample_weight=weights, drop_intermediate=False)
    equal = brentq(lambda x: 1 - x - np.interp(x, far, tar), 0, 1)
    return float(equal), float(tar[far <= 0.01 + 1e-12].max())


@pytest.mark.parametrize(("n", "classes", "seed", "noise"), [(150, 6, 0, 0.8), (90, 20, 1, 1.2)])
def test_rates_are_those_of_scikit_learn(n: int, classes: int, seed: int, noise: float) -> None:
    embeddings, _, targets = clustered(n, classes, seed, noise)
    found, (equal, accepted) = measured(embeddings, targets), independent_rates(embeddings, targets)
    assert 0.05 < equal < 0.4 and 0.1 < accepted < 0.95
    assert found.equal_error == pytest.approx(equal, abs=1e-6)
    assert found.true_accepts == pytest.approx(accepted, abs=1e-9)


@pytest.mark.parametrize(
    ("degrees", "equal_error", "true_accepts"),
    [
        ((0, 10, 40, 60), 0.0, 1.0),  # genuine 10°, 20°; impostors 30° to 60°
        ((0, 10, 40, 75), 0.25, 0.5),  # genuine 10°, 35°; impostors 30°, 40°, 65°, 75°
        ((0, 20, 30, 90), 0.5, 0.0),  # genuine 20°, 60°; impostors 10°, 30°, 70°, 90°
    ],
)
def test_rates_by_hand(degrees: tuple[float, ...], equal_error: float, true_accepts: float) -> None:
    found = measured(of_angles(*degrees), np.array([0, 0, 1, 1]))
    assert (found.equal_error, found.true_accepts) == (pytest.approx(equal_error), true_accepts)


def test_equal_similarities_are_accepted_together() -> None:
    found = measured(of_angles(0, 0, 0, 90, 90), np.array([0, 0, 1, 1, 2]))
    # Genuine: 1 of similarity 1, 1 of 0. Impostors: 3 of similarity 1, 5 of 0.
    assert found.true_accepts == 0.0
    # Equal after 1/9 of the way between the points (3/8, 1/2) and (1, 1) of the curve.
    assert found.equal_error == pytest.approx(3 / 8 + 5 / 8 / 9)


def test_intervals_are_those_of_a_bootstrap_of_images() -> None:
    embeddings, _, targets = clustered(70, 5, 3)
    rng, n = np.random.default_rng(7), len(targets)
    drawn = [np.bincount(rng.integers(0, n, n), minlength=n) for _ in range(400)]
    rates = np.array([independent_rates(embeddings, targets, counts) for counts in drawn])
    found = measured(embeddings, targets)
    for key, column in (("equal_error", rates[:, 0]), ("true_accepts", rates[:, 1])):
        low, high = np.quantile(column, [0.025, 0.975])
        interval = found.intervals[key]
        assert interval is not None
        # An unseen image, twice of one in 70 on average, widens both ends.
        assert low - 0.07 < interval.low < low + 0.02 and high - 0.02 < interval.high < high + 0.07


def test_unseen_image_widens_the_interval() -> None:
    targets = np.arange(100) % 4
    found = measured(np.eye(4, dtype=np.float32)[targets], targets)
    interval = found.intervals["true_accepts"]
    assert interval is not None and found.true_accepts == interval.high == 1.0
    # No failure in 100 images: up to 3.7% of images may fail, and with them nearly twice as many pairs.
    assert interval.low == pytest.approx(1 - 2 * 0.0362, abs=0.01)


def test_drop_is_paired() -> None:
    fp32, int8, targets = clustered(200, 8, 4, change=0.1)
    found = verification({"int8": int8, "fp32": fp32}, "fp32", targets)
    assert found is not None and [row.model for row in found.files] == ["fp32", "int8"]
    first, second = found.files
    assert first.drop is None and second.drop == pytest.approx(first.true_accepts - second.true_accepts)
    drop, own = second.intervals["drop"], second.intervals["true_accepts"]
    assert drop is not None and own is not None and drop.low < second.drop < drop.high
    assert drop.high - drop.low < 0.6 * (own.high - own.low)
    assert found.genuine + found.impostors == 200 * 199 / 2 and (found.samples, found.classes) == (200, 8)


def test_same_files_differ_by_an_unseen_image_only() -> None:
    fp32, _, targets = clustered(200, 8, 4)
    found = verification({"fp32": fp32, "int8": fp32}, "fp32", targets)
    assert found is not None
    drop = found.files[1].intervals["drop"]
    assert found.files[1].drop == 0 and drop is not None
    assert drop.high == pytest.approx(2 * 3.69 / 200, abs=0.01) and drop.low == pytest.approx(-drop.high)


def test_results_are_reproducible() -> None:
    embeddings, _, targets = clustered(60, 4, 5)
    assert astuple(measured(embeddings, targets)) == astuple(measured(embeddings, targets))


def test_invalid_embeddings_are_accepted_last() -> None:
    fp32, _, targets = clustered(100, 4, 6, noise=0.3)
    broken = fp32.copy()
    broken[::4] = np.nan
    found = verification({"fp32": fp32, "int8": broken, "fp16": np.full_like(fp32, np.inf)}, "fp32", targets)
    assert found is not None
    good, some, none = found.files
    assert good.true_accepts > 0.9 and 0.4 < some.true_accepts < 0.7
    assert (none.true_accepts, none.equal_error) == (0.0, 0.5)


@pytest.mark.parametrize("classes", [[0, 0, 0], [0, 1, 2], [0], []])
def test_nothing_without_both_kinds_of_pairs(classes: list[int]) -> None:
    targets = np.array(classes, np.int64)
    assert verification({"fp32": np.ones((len(classes), 2), np.float32)}, "fp32", targets) is None


def test_no_interval_if_a_resample_has_one_kind_of_pairs() -> None:
    found = measured(of_angles(0, 10, 40, 60), np.array([0, 0, 1, 1]))
    assert set(found.intervals.values()) == {None}


def test_choice_of_images() -> None:
    few = np.array([2, 0, 1, 0])
    np.testing.assert_array_equal(choose_verified(few), [1, 3, 2, 0])
    many = np.random.default_rng(0).permutation(np.arange(5000) % 10)
    chosen = choose_verified(many)
    assert len(np.unique(chosen)) == MAX_VERIFIED and set(np.bincount(many[chosen])) == {100}
    # One image each of a thousand classes would have no genuine pair.
    sparse = np.repeat(np.arange(1500), 6)
    chosen = choose_verified(sparse)
    kept = np.unique(sparse[chosen], return_counts=True)[1]
    assert len(chosen) == MAX_VERIFIED and len(kept) == 200 and kept.min() >= 5


@pytest.mark.slow
@pytest.mark.parametrize(("n", "classes"), [(60, 5), (120, 10)])
def test_intervals_cover_the_truth(n: int, classes: int) -> None:
    def true_values(seed: int) -> tuple[float, float, float]:
        fp32, int8, targets = clustered(MAX_VERIFIED, classes, seed, change=0.2)
        (equal_error, exact), (_, quantized) = (independent_rates(each, targets) for each in (fp32, int8))
        return equal_error, exact, exact - quantized

    truth = np.mean([true_values(seed) for seed in range(1000, 1004)], axis=0)
    covered = np.zeros(3)
    for seed in range(100):
        fp32, int8, targets = clustered(n, classes, seed, change=0.2)
        found = verification({"fp32": fp32, "int8": int8}, "fp32", targets)
        assert found is not None
        first, second = found.files
        ends = first.intervals["equal_error"], first.intervals["true_accepts"], second.intervals["drop"]
        covered += [
            isinstance(end, Interval) and end.low <= value <= end.high for end, value in zip(ends, truth, strict=True)
        ]
    assert (covered >= 92).all(), covered
