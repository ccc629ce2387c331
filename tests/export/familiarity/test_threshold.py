"""Threshold of familiarity: bound on the rejected share of known samples."""

import numpy as np
import pytest
from scipy.stats import beta

from kdedge_export.familiarity.threshold import fewest_known, fit_threshold, share_bound


@pytest.mark.parametrize(("found", "n"), [(0, 59), (1, 93), (12, 390), (5, 5), (38, 1000)])
def test_bound_is_that_of_clopper_and_pearson(found: int, n: int) -> None:
    expected = 1.0 if found == n else beta.ppf(0.95, found + 1, n - found)
    assert share_bound(found, n) == pytest.approx(expected, abs=1e-9)


def test_fewest_samples() -> None:
    assert fewest_known() == 59
    scores = np.random.default_rng(0).normal(size=59).astype(np.float32)
    assert fit_threshold(scores[:58]) is None
    fitted = fit_threshold(scores)
    assert fitted is not None
    assert (fitted.value, fitted.known, fitted.rejected) == (float(scores.min()), 59, 0)


@pytest.mark.parametrize("n", [60, 93, 390, 1500])
def test_threshold_is_the_largest_that_is_allowed(n: int) -> None:
    scores = np.random.default_rng(n).normal(size=n).astype(np.float32)
    fitted = fit_threshold(scores)
    assert fitted is not None
    assert fitted.rejected == (scores < np.float32(fitted.value)).sum()
    assert fitted.most_rejected == pytest.approx(share_bound(fitted.rejected, n))
    assert share_bound(fitted.rejected, n) <= 0.05 < share_bound(fitted.rejected + 1, n)


def test_bound_holds_for_new_samples_of_any_distribution() -> None:
    rng = np.random.default_rng(1)
    exceeded = 0
    for _ in range(400):
        fitted = fit_threshold(rng.standard_cauchy(200))
        assert fitted is not None
        exceeded += np.arctan(fitted.value) / np.pi + 0.5 > 0.05  # share of the population below the threshold
    assert exceeded <= 0.05 * 400 + 3 * np.sqrt(400 * 0.05 * 0.95)


def test_ties_reject_no_more_than_allowed() -> None:
    fitted = fit_threshold(np.repeat(np.float32([0.1, 0.9]), [30, 70]))
    assert fitted is not None and fitted.rejected == 0
