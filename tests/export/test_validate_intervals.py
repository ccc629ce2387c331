"""Intervals are those of the bootstrap, cover what they should, and say what more images would do."""

import numpy as np
import pytest
from scipy import stats

from kdedge_export.validate.intervals import (
    Interval,
    images_needed,
    interval_of,
    mean_interval,
    percentile_interval,
    unseen_share,
)

SCORES = np.random.default_rng(0).gamma(2.0, 1.0, 300)


def ends(interval: Interval | None) -> tuple[float, float]:
    assert interval is not None
    return interval.low, interval.high


def scipys(statistic: object, **options: object) -> tuple[float, float]:
    result = stats.bootstrap(
        (SCORES,), statistic, method="percentile", n_resamples=9999, random_state=np.random.default_rng(1), **options
    )
    return tuple(result.confidence_interval)


def test_the_mean_has_scipys_interval() -> None:
    # Two random draws of resamples: they differ by a few percent of the width.
    expected = scipys(np.mean)
    assert ends(mean_interval(SCORES)) == pytest.approx(expected, abs=0.05 * (expected[1] - expected[0]))


def test_a_percentile_has_scipys_interval() -> None:
    expected = scipys(lambda x, axis: np.percentile(x, 5, axis=axis), vectorized=True)
    assert ends(percentile_interval(SCORES, 5)) == pytest.approx(expected, abs=0.1 * (expected[1] - expected[0]))


def test_any_figure_of_image_numbers_will_do() -> None:
    expected = ends(mean_interval(SCORES))
    by_number = interval_of(lambda index: float(SCORES[index].mean()), len(SCORES), resamples=2000)
    assert ends(by_number) == pytest.approx(expected, abs=1e-12)


def test_the_same_scores_give_the_same_interval() -> None:
    assert mean_interval(SCORES) == mean_interval(SCORES.copy())


def test_what_is_the_same_on_every_image_has_no_width() -> None:
    assert ends(mean_interval(np.zeros(50))) == (0.0, 0.0)
    assert ends(percentile_interval(np.ones(50), 5)) == (1.0, 1.0)


def test_one_image_has_no_interval_and_nan_is_no_image() -> None:
    assert mean_interval(np.array([0.5])) is None
    assert percentile_interval(np.array([0.5, np.nan]), 5) is None
    assert mean_interval(np.append(SCORES, np.nan)) == mean_interval(SCORES)


def test_nineteen_of_twenty_intervals_hold_the_truth() -> None:
    rng = np.random.default_rng(2)
    held = 0
    for _ in range(300):
        low, high = ends(mean_interval((rng.random(200) < 0.8).astype(np.float64)))
        held += low <= 0.8 <= high
    assert 0.91 <= held / 300 <= 0.98


def test_as_many_images_as_it_says_would_show_it() -> None:
    """A share of 90 % on 100 images reaches below 88 %; on the number that is named it ends near 88 %."""
    few = (np.arange(100) < 90).astype(np.float64)
    low, _ = ends(mean_interval(few))
    assert low < 0.88
    needed = images_needed(100, 0.9, low, 0.88)
    assert needed is not None
    many = (np.arange(needed) < round(0.9 * needed)).astype(np.float64)
    assert ends(mean_interval(many))[0] == pytest.approx(0.88, abs=0.003)


def test_no_number_of_images_shows_what_lies_on_the_bound() -> None:
    assert images_needed(100, 1.0, 2.0, 1.0) is None


def test_what_no_image_shows_is_seldom_but_not_excluded() -> None:
    """With 3 / n of pictures at fault, n images are without one in 5 of 100 cases."""
    assert unseen_share(2) == 1.0
    n = 400
    assert (1 - unseen_share(n)) ** n == pytest.approx(0.05, abs=0.001)
