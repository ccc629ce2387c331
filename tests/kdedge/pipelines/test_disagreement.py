"""Disagreement between models, compared with sums over pairs."""

from itertools import combinations

import numpy as np
import pytest

from kdedge.pipelines.disagreement import class_accuracy, disagreement, most_informative

RNG = np.random.default_rng(0)


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
    np.testing.assert_allclose(disagreement(predictions, stacks), expected, atol=1e-6)


def test_equal_models_do_not_differ() -> None:
    (stack,) = maps(1, 6)
    predictions = RNG.integers(0, 3, 6)
    np.testing.assert_allclose(disagreement([predictions] * 3, [stack, 2 * stack + 1, stack]), 0, atol=1e-6)


def test_opposite_maps_and_predictions_differ_most() -> None:
    (stack,) = maps(1, 6)
    np.testing.assert_allclose(disagreement([np.zeros(6, int), np.ones(6, int)], [stack, -stack]), 2, atol=1e-6)


def test_constant_map_has_zero_correlation() -> None:
    (stack,) = maps(1, 4)
    same = np.zeros(4, int)
    for nothing in (np.full_like(stack, 3.0), np.full_like(stack, np.nan)):
        np.testing.assert_allclose(disagreement([same, same], [stack, nothing]), 0.5, atol=1e-6)


def test_maps_are_compared_at_the_smallest_size() -> None:
    (coarse,) = maps(1, 4, side=4)
    fine = coarse.repeat(2, axis=1).repeat(2, axis=2)
    same = np.zeros(4, int)
    np.testing.assert_allclose(disagreement([same, same], [coarse, fine]), 0, atol=1e-6)


def test_predictions_alone_are_used_without_two_maps() -> None:
    predictions = [np.array([0, 0]), np.array([0, 1]), np.array([0, 2])]
    np.testing.assert_allclose(disagreement(predictions, maps(1, 2)), [0, 1])


def test_images_are_spread_over_the_classes() -> None:
    targets = np.array([0] * 10 + [1] * 10 + [2] * 10)
    scores = np.concatenate([np.linspace(3, 2, 10), np.linspace(1.5, 1, 10), np.linspace(0.5, 0, 10)])
    assert most_informative(scores, targets, 6) == [0, 1, 10, 11, 20, 21]
    assert most_informative(scores, targets, 2) == [0, 10]


def test_class_accuracy() -> None:
    targets = np.array([0, 0, 0, 0, 2])
    right = np.array([True, True, True, False, False])
    np.testing.assert_array_equal(class_accuracy(right, targets, 3), [0.75, np.nan, 0.0])
