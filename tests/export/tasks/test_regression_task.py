"""Task regression at export: R² of each sample, and its interval."""

import numpy as np
import pytest

from kdedge_export.metrics.comparison import compare
from kdedge_export.metrics.file_predictions import Predictions
from kdedge_export.tasks import EXPORT_TASKS
from kdedge_export.tasks.regression import REGRESSION
from kdedge_export.validation.baseline_checks import check_constant
from kdedge_export.validation.gates import Gates


def values(count: int = 300, scale: float = 1e4) -> np.ndarray:
    return np.random.default_rng(0).normal(5, 1, count).astype(np.float32) * scale


def off(wanted: np.ndarray, share: float, seed: int = 1) -> np.ndarray:
    """Return outputs whose errors have a share of the standard deviation."""
    noise = np.random.default_rng(seed).normal(0, share * wanted.std(), len(wanted))
    return (wanted + noise).astype(np.float32)[:, None]


@pytest.mark.parametrize("scale", [1e-3, 1, 1e6])
def test_mean_score_is_r2(scale: float) -> None:
    wanted = values(scale=scale)
    found = off(wanted, 0.5)
    r2 = 1 - np.square(found[:, 0] - wanted).sum() / np.square(wanted - wanted.mean()).sum()
    assert REGRESSION.correct(found, wanted).mean() == pytest.approx(r2, rel=1e-4)
    assert EXPORT_TASKS["regression"] is REGRESSION


def test_agreement_ignores_rounding_only() -> None:
    reference = values()[:, None]
    rounded = reference * np.float32(1 + 1e-7)
    np.testing.assert_array_equal(REGRESSION.agreement(reference, rounded), 1)
    apart = REGRESSION.agreement(reference, off(reference[:, 0], 0.3))
    assert 0.85 < apart.mean() < 0.95 and apart.min() >= 0 and apart.max() <= 1
    broken = reference.copy()
    broken[3] = np.nan
    assert REGRESSION.agreement(reference, broken)[3] == 0 and REGRESSION.correct(broken, reference[:, 0])[3] < -1e5
    assert (REGRESSION.divergence(reference, reference) == 0).all()


def test_drop_of_r2_has_an_interval_that_covers_it() -> None:
    wanted = values(2000)
    classes = np.zeros(2000, np.int64)
    kept, lost = (Predictions(off(wanted, share), None, classes) for share in (0.3, 0.5))
    found = compare(kept, lost, wanted, REGRESSION)
    drop = 0.5**2 - 0.3**2
    interval = found.intervals["accuracy_drop"]
    assert found.accuracy_drop == pytest.approx(drop, abs=0.02) and interval is not None
    assert interval.low < drop < interval.high and interval.high - interval.low < 0.06
    few = compare(
        *(Predictions(each.logits[:40], None, classes[:40]) for each in (kept, lost)), wanted[:40], REGRESSION
    )
    narrow, wide = interval, few.intervals["accuracy_drop"]
    assert wide is not None and wide.high - wide.low > 2 * (narrow.high - narrow.low)


def test_constant_prediction_has_an_r2_of_zero() -> None:
    wanted = values()
    constant = REGRESSION.constant_correct(wanted, 1)
    mean = REGRESSION.correct(np.full((len(wanted), 1), wanted.mean(), np.float32), wanted)
    assert not constant.any() and mean.mean() == pytest.approx(0, abs=1e-6)
    scores = [REGRESSION.correct(off(wanted, share), wanted) for share in (0.8, 1.2)]
    useful, useless = (check_constant("int8", some, constant, Gates(), REGRESSION) for some in scores)
    assert useful.outcome == "passed" and useful.measured == pytest.approx(0.36, abs=0.1)
    assert useful.interval is not None and useful.interval.high <= 1 and useful.unit == "variance"
    assert useless.outcome == "failed"


def test_rounding_of_a_single_sample_is_no_divergence() -> None:
    """A check of one sample at a time has no variance."""
    value = np.array([[80.36804]], np.float32)
    assert REGRESSION.divergence(value, np.nextafter(value, np.float32(np.inf))).max() < 1e-12
    assert REGRESSION.divergence(value, 1.1 * value).max() > 1e-3
