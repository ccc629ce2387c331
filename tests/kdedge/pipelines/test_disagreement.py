"""Disagreement between models, compared with sums over pairs."""

from itertools import combinations

import numpy as np
import pytest

from kdedge.pipelines.disagreement import (
    class_accuracy,
    differing_classes,
    differing_values,
    disagreement,
    most_informative,
)

RNG = np.random.default_rng(0)
SAME = np.zeros(4)
"""Difference of equal predictions for four images."""


def maps(count: int, images: int, side: int = 5) -> list[np.ndarray]:
    return [RNG.normal(size=(images, side, side)).astype(np.float32) for _ in range(count)]


def plain(predictions: list[np.ndarray], stacks: list[np.ndarray], image: int) -> float:
    """Compute each pair separately with numpy's correlation."""
    differing = [a[image] != b[image] for a, b in combinations(predictions, 2)]
    r = [np.corrcoef(a[image].ravel(), b[image].ravel())[0, 1] for a, b in combinations(stacks, 2)]
    return float(np.mean(differing) + (1 - np.mean(r)) / 2)


@pytest.mark.parametrize("models", [2, 3, 7])
def test_disagreement_is_the_mean_over_pairs(models: int) -> None:
    predictions, stacks = [RNG.integers(0, 3, 20) for _ in range(models)], maps(models, 20)
    expected = [plain(predictions, stacks, image) for image in range(20)]
    np.testing.assert_allclose(disagreement(differing_classes(predictions), stacks), expected, atol=1e-6)


def test_equal_models_do_not_differ() -> None:
    (stack,) = maps(1, 6)
    predictions = RNG.integers(0, 3, 6)
    found = disagreement(differing_classes([predictions] * 3), [stack, 2 * stack + 1, stack])
    np.testing.assert_allclose(found, 0, atol=1e-6)


def test_opposite_maps_and_predictions_differ_most() -> None:
    (stack,) = maps(1, 6)
    differing = differing_classes([np.zeros(6, int), np.ones(6, int)])
    np.testing.assert_allclose(disagreement(differing, [stack, -stack]), 2, atol=1e-6)


def test_constant_map_has_zero_correlation() -> None:
    (stack,) = maps(1, 4)
    for nothing in (np.full_like(stack, 3.0), np.full_like(stack, np.nan)):
        np.testing.assert_allclose(disagreement(SAME, [stack, nothing]), 0.5, atol=1e-6)


def test_maps_are_compared_at_the_smallest_size() -> None:
    (coarse,) = maps(1, 4, side=4)
    fine = coarse.repeat(2, axis=1).repeat(2, axis=2)
    np.testing.assert_allclose(disagreement(SAME, [coarse, fine]), 0, atol=1e-6)


def test_predictions_alone_are_used_without_two_maps() -> None:
    predictions = [np.array([0, 0]), np.array([0, 1]), np.array([0, 2])]
    np.testing.assert_allclose(disagreement(differing_classes(predictions), maps(1, 2)), [0, 1])


@pytest.mark.parametrize("models", [2, 3, 7])
def test_values_differ_by_their_mean_distance_over_pairs(models: int) -> None:
    measured = RNG.normal(size=20)
    values = [measured + RNG.normal(size=20) for _ in range(models)]
    expected = np.mean([np.abs(a - b) for a, b in combinations(values, 2)], axis=0) / np.std(measured)
    np.testing.assert_allclose(differing_values(values, measured), expected)
    scaled = differing_values([1000 * each + 7 for each in values], 1000 * measured + 7)
    np.testing.assert_allclose(scaled, expected)


def test_value_that_is_not_finite_differs_from_others_only() -> None:
    one, other = np.array([1.0, np.nan, np.inf, 3.0]), np.array([np.nan, np.nan, -np.inf, 1.0])
    measured = np.array([1.0, 1.0, 3.0, 3.0])
    np.testing.assert_array_equal(differing_values([one, other], measured), [np.inf, 0, 0, 2])


def test_equal_measured_values_have_the_deviation_one() -> None:
    np.testing.assert_array_equal(differing_values([np.zeros(2), np.full(2, 3.0)], np.ones(2)), 3)


def test_images_are_spread_over_the_classes() -> None:
    targets = np.array([0] * 10 + [1] * 10 + [2] * 10)
    scores = np.concatenate([np.linspace(3, 2, 10), np.linspace(1.5, 1, 10), np.linspace(0.5, 0, 10)])
    assert most_informative(scores, targets, 6) == [0, 1, 10, 11, 20, 21]
    assert most_informative(scores, targets, 2) == [0, 10]


def test_class_accuracy() -> None:
    targets = np.array([0, 0, 0, 0, 2])
    right = np.array([True, True, True, False, False])
    np.testing.assert_array_equal(class_accuracy(right, targets, 3), [0.75, np.nan, 0.0])
