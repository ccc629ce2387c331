"""Task embedding at export: nearest prototypes, and the divergence of similarities."""

import numpy as np
import pytest

from kdedge_export.tasks import EXPORT_TASKS
from kdedge_export.tasks.embedding import EMBEDDING
from kdedge_export.validation import Gates


def similarities(n: int, seed: int) -> np.ndarray:
    """Draw similarities of images between two of their five prototypes."""
    rng = np.random.default_rng(seed)
    found = rng.uniform(0, 0.3, (n, 5))
    found[:, :2] += 0.4
    return found.astype(np.float32)


def test_prediction_is_the_nearest_prototype() -> None:
    assert EXPORT_TASKS["embedding"] is EMBEDDING
    logits = np.array([[0.9, 0.1], [-0.2, -0.1], [np.nan, 0.3]], np.float32)
    np.testing.assert_array_equal(EMBEDDING.correct(logits, np.array([0, 0, 1])), [1, 0, 0])
    np.testing.assert_array_equal(EMBEDDING.agreement(logits, logits[[0, 0, 2]]), [1, 0, 0])


def test_similarities_are_absolute() -> None:
    logits = similarities(3, 0)
    np.testing.assert_array_equal(EMBEDDING.centered(logits), logits.astype(np.float64))
    assert not EMBEDDING.has_probabilities
    assert EXPORT_TASKS["classify"].has_probabilities


@pytest.mark.parametrize(("deviation", "bound"), [(0.022, "int8"), (0.0007, "fp32")])
def test_divergence_of_documented_deviations_is_at_the_bound(deviation: float, bound: str) -> None:
    gates = Gates()
    nats = gates.fp32_divergence if bound == "fp32" else gates.precisions[bound].divergence
    rng = np.random.default_rng(1)
    # Two equally similar prototypes, whose difference deviates by twice the deviation of each.
    reference = np.tile(np.array([[0.6, 0.6, -0.4]]), (400, 1))
    moved = reference + np.outer(rng.choice([-deviation, deviation], 400), [1, -1, 0])
    assert EMBEDDING.divergence(reference, moved).mean() == pytest.approx(nats, rel=0.1)


def test_divergence_separates_small_from_large_errors() -> None:
    reference, rng = similarities(200, 2), np.random.default_rng(3)
    small, large = (reference + rng.normal(0, sigma, reference.shape) for sigma in (0.01, 0.06))
    bound = Gates().precisions["int8"].divergence
    assert EMBEDDING.divergence(reference, reference).max() == 0
    assert EMBEDDING.divergence(reference, small).mean() < bound / 4
    assert EMBEDDING.divergence(reference, large).mean() > bound
