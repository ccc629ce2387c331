"""Exact intervals of Poisson counts."""

import pytest
from scipy.stats import chi2

from kdedge_export.metrics.false_alarms import poisson_interval


@pytest.mark.parametrize("count", [0, 1, 2, 7, 40, 300])
def test_interval_is_exact(count: int) -> None:
    low, high = poisson_interval(count)
    assert low == pytest.approx(0 if count == 0 else chi2.ppf(0.025, 2 * count) / 2, abs=1e-9)
    assert high == pytest.approx(chi2.ppf(0.975, 2 * count + 2) / 2, rel=1e-9)
