"""Confidence intervals: agreement with scipy, coverage, and required numbers of images."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats
from validate_toys import compared, int8_gates

from kdedge_export.metrics.comparison import Comparison
from kdedge_export.metrics.confidence import (
    DIFFERENCE,
    SHARE,
    Interval,
    fewest_for_percentile,
    interval_of,
    mean_interval,
    percentile_interval,
    rounded_up,
    samples_needed,
    unseen_share,
)
from kdedge_export.metrics.faithfulness import MAX_FAITHFULNESS_SAMPLES, _summed_up
from kdedge_export.validation import Gates
from kdedge_export.validation.fidelity_checks import check_comparison
from kdedge_export.validation.gates import check_faithfulness

SCORES = np.random.default_rng(0).gamma(2.0, 1.0, 300)


def ends(interval: Interval | None) -> tuple[float, float]:
    assert interval is not None
    return interval.low, interval.high


def scipys(statistic: object, **options: object) -> tuple[float, float]:
    result = stats.bootstrap(
        (SCORES,), statistic, method="percentile", n_resamples=9999, random_state=np.random.default_rng(1), **options
    )
    return tuple(result.confidence_interval)


def test_mean_interval_matches_scipy_bootstrap() -> None:
    # Two random sets of resamples differ by a few percent of the width.
    expected = scipys(np.mean)
    assert ends(mean_interval(SCORES)) == pytest.approx(expected, abs=0.05 * (expected[1] - expected[0]))


def test_interval_of_accepts_any_statistic() -> None:
    expected = ends(mean_interval(SCORES))
    by_row = interval_of(lambda rows: SCORES[rows].mean(axis=1), len(SCORES), resamples=2000)
    assert ends(by_row) == pytest.approx(expected, abs=1e-12)


def test_same_scores_give_the_same_interval() -> None:
    assert mean_interval(SCORES) == mean_interval(SCORES.copy())


@pytest.mark.parametrize(("hits", "n"), [(0, 30), (30, 30), (3, 100), (90, 100), (4990, 5000)])
def test_proportion_has_the_clopper_pearson_interval(hits: int, n: int) -> None:
    exact = stats.binomtest(hits, n).proportion_ci(0.95, method="exact")
    low, high = ends(mean_interval((np.arange(n) < hits).astype(np.float64), SHARE))
    assert (low, high) == pytest.approx((exact.low, exact.high), abs=0.02 * (exact.high - exact.low))


def test_bounded_interval_approaches_the_bootstrap_with_many_images() -> None:
    scores = np.random.default_rng(0).beta(2, 1, 3000)
    low, high = ends(mean_interval(scores))
    assert ends(mean_interval(scores, SHARE)) == pytest.approx((low, high), abs=0.05 * (high - low))


def test_constant_scores_have_the_width_of_unseen_share() -> None:
    for n in (1, 30, 400):
        unseen = unseen_share(n)
        assert ends(mean_interval(np.ones(n), SHARE)) == pytest.approx((1 - unseen, 1.0), rel=0.02, abs=1e-3)
        assert ends(mean_interval(np.zeros(n), DIFFERENCE, 100)) == pytest.approx(
            (-100 * unseen, 100 * unseen), rel=0.02
        )
    assert ends(mean_interval(np.ones(30), SHARE))[1] == 1.0


def test_percentile_has_the_interval_of_its_order_statistics() -> None:
    """The ranks contain the 5th percentile in 95 of 100 draws."""
    for n in (72, 100, 320, 5000):
        low, high = ends(percentile_interval(np.random.default_rng(0).permutation(n) + 1.0, 5))
        assert stats.binom.cdf(low - 1, n, 0.05) <= 0.025 < stats.binom.cdf(low, n, 0.05)
        assert stats.binom.sf(high - 1, n, 0.05) <= 0.025 < stats.binom.sf(high - 2, n, 0.05)


def test_too_few_images_have_no_percentile_interval() -> None:
    assert fewest_for_percentile(5) == 72
    assert percentile_interval(np.ones(71), 5) is None
    assert percentile_interval(np.append(np.ones(71), np.nan), 5) is None
    assert percentile_interval(np.ones(72), 5) == Interval(1.0, 1.0)


def weighted_ends(values: np.ndarray, counts: np.ndarray, bounds: tuple[float, float]) -> tuple[float, float]:
    """Draw a weight per image and one for an image on the bound, and return quantiles of the means."""
    held = 2**22 // len(values)
    draws = max(2000, min(50_000, held))
    generator, means = np.random.default_rng(0), ([], [])
    for start in range(0, draws, held):
        size = (min(held, draws - start), len(values))
        drawn = generator.standard_exponential(size) if (counts == 1).all() else generator.standard_gamma(counts, size)
        extra = generator.standard_exponential(size[0])
        for bound, found in zip(bounds, means, strict=True):
            found.append(((drawn * values).sum(axis=1) + extra * bound) / (drawn.sum(axis=1) + extra))
    return float(np.quantile(np.concatenate(means[0]), 0.025)), float(np.quantile(np.concatenate(means[1]), 0.975))


@pytest.mark.parametrize("n", [2, 7, 3000])
@pytest.mark.parametrize("bounds", [SHARE, DIFFERENCE, (-2.0, 3.0)])
def test_ends_of_a_bounded_mean_are_quantiles_of_weighted_means(n: int, bounds: tuple[float, float]) -> None:
    scores = np.random.default_rng(n).random(n)
    assert ends(mean_interval(scores, bounds)) == pytest.approx(
        weighted_ends(np.sort(scores), np.ones(n), bounds), abs=1e-9
    )
    assert ends(mean_interval(scores, bounds, 5.0)) == pytest.approx(
        tuple(5 * end for end in weighted_ends(np.sort(scores), np.ones(n), bounds)), abs=1e-9
    )


def test_equal_scores_have_the_weight_of_their_images() -> None:
    scores = np.repeat([0.5, 0.1, 0.9], [3, 1, 6])
    expected = weighted_ends(np.array([0.1, 0.5, 0.9]), np.array([1, 3, 6]), SHARE)
    assert ends(mean_interval(scores, SHARE)) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("n", [2, 5, 3000])
def test_ends_of_an_unbounded_mean_are_quantiles_of_seeded_resamples(n: int) -> None:
    scores, generator, held = np.random.default_rng(n).normal(size=n), np.random.default_rng(0), 2**22 // n
    means = [
        scores[generator.integers(0, n, (min(held, 2000 - start), n))].mean(axis=1) for start in range(0, 2000, held)
    ]
    expected = np.quantile(np.concatenate(means), [0.025, 0.975])
    assert ends(mean_interval(scores)) == pytest.approx(expected, abs=1e-12)
    assert ends(mean_interval(scores, scale=3.0)) == pytest.approx(3 * expected, abs=1e-12)


def test_interval_of_uses_500_resamples_and_needs_two_images() -> None:
    seen: list[np.ndarray] = []

    def figures(rows: np.ndarray) -> np.ndarray:
        seen.extend(rows)
        return rows.sum(axis=1).astype(np.float64)

    found = ends(interval_of(figures, 6))
    drawn = np.random.default_rng(0).integers(0, 6, (500, 6))
    np.testing.assert_array_equal(np.stack(seen), drawn)
    assert found == pytest.approx(np.quantile(drawn.sum(axis=1), [0.025, 0.975]))
    assert interval_of(figures, 1) is None


@pytest.mark.parametrize("percent", [5, 20, 50, 90])
@pytest.mark.parametrize("n", [1, 6, 10, 29, 73, 400])
def test_ends_of_a_percentile_are_ranks_of_the_binomial_distribution(n: int, percent: float) -> None:
    share, ranks = percent / 100, np.arange(1, n + 1)
    low = max((r for r in ranks if stats.binom.cdf(r - 1, n, share) <= 0.025), default=0)
    high = min((r for r in ranks if stats.binom.sf(r - 1, n, share) <= 0.025), default=n + 1)
    found = percentile_interval(np.random.default_rng(1).permutation(n) + 1.0, percent)
    assert found == (Interval(float(low), float(high)) if low >= 1 and high <= n else None)


@pytest.mark.parametrize(("percent", "fewest"), [(5, 72), (1, 368), (10, 36), (50, 6)])
def test_fewest_images_for_a_percentile(percent: float, fewest: int) -> None:
    assert (1 - percent / 100) ** fewest <= 0.025 < (1 - percent / 100) ** (fewest - 1)
    assert fewest_for_percentile(percent) == fewest


@pytest.mark.parametrize(
    ("images", "rounded"),
    [(0, 0), (0.2, 1), (1, 1), (9.2, 10), (10, 10), (99.1, 100), (100.5, 110), (1234, 1300), (1300, 1300)],
)
def test_numbers_are_rounded_up_to_two_digits(images: float, rounded: int) -> None:
    assert rounded_up(images) == rounded


def test_samples_needed_matches_the_formula() -> None:
    # Unseen images: 3.689 · |1 - 0.9| = 0.3689; a margin of 0.08, a width of 0.1.
    unseen = -math.log(0.025) * 0.1
    expected = unseen / 0.08 + (12 - unseen / 0.1) * (0.1 / 0.08) ** 2
    assert samples_needed(12, 0.9, 1.0, 0.98, 1.0) == math.ceil(expected) == 18
    # The whole width is due to unseen images: (0.2 · 3.689) / 0.1.
    assert samples_needed(1, 0.5, 0.9, 0.6, 0.3) == math.ceil(-math.log(0.025) * 0.2 / 0.1)
    # Without an unseen image, (0.5 / 0.2)² times as many: 18.75.
    assert samples_needed(3, 0.2, 0.7, 0.4) == 19
    assert samples_needed(10, 0.5, math.inf, 0.6) is None
    assert samples_needed(10, 0.5, 0.7, 0.5 + 1e-13) is None


def test_single_image_has_no_bootstrap_and_nan_is_ignored() -> None:
    assert mean_interval(np.array([0.5])) is None
    assert mean_interval(np.array([np.nan]), SHARE) is None
    assert mean_interval(np.append(SCORES, np.nan)) == mean_interval(SCORES)
    assert mean_interval(np.array([0.5, np.nan]), SHARE) == mean_interval(np.array([0.5]), SHARE)


def test_intervals_cover_the_truth_in_95_percent_of_draws() -> None:
    rng = np.random.default_rng(2)
    held = 0
    for _ in range(300):
        low, high = ends(mean_interval((rng.random(200) < 0.8).astype(np.float64), SHARE))
        held += low <= 0.8 <= high
    assert 0.92 <= held / 300 <= 0.99


class TestFalsePassRate:
    """Models that barely violate a bound pass its check in at most 1 of 40 draws of images.

    An outcome depends on the number of failing images, so that the pass probability is a sum of binomial terms.
    """

    MOST = 0.0255
    """1 in 40, plus the error of an interval's seeded weights."""

    def shown(self, faulty: Callable[[int], Comparison], n: int, share: float, key: str, gates: Gates) -> float:
        """Return the probability that the check passes if this share of images fails."""
        chance = 0.0
        for count in range(n + 1):
            (check,) = (check for check in check_comparison("int8", faulty(count), gates) if check.key == key)
            if check.outcome != "passed":
                return chance
            chance += stats.binom.pmf(count, n, share)
        return chance

    @pytest.mark.parametrize("n", [30, 60, 100, 200, 300])
    @pytest.mark.parametrize("loss", [0.005, 0.01, 0.02, 0.03])
    def test_lost_predictions(self, n: int, loss: float) -> None:
        gates = int8_gates(accuracy_drop_points=100 * loss - 1e-6)
        chance = self.shown(
            lambda count: compared(n, lost=range(count), correlations=None), n, loss, "int8_accuracy_drop", gates
        )
        assert chance <= self.MOST

    @pytest.mark.parametrize("n", [30, 60, 100, 200, 300])
    @pytest.mark.parametrize("loss", [0.02, 0.1])
    def test_changed_predictions_without_labels(self, n: int, loss: float) -> None:
        gates = int8_gates(agreement=1 - loss + 1e-8)
        chance = self.shown(
            lambda count: compared(n, lost=range(count), labeled=False, correlations=None),
            n,
            loss,
            "int8_agreement",
            gates,
        )
        assert chance <= self.MOST

    def test_lost_and_gained_predictions(self) -> None:
        n, lost, gained, chance = 400, 0.015, 0.005, 0.0
        for plus in range(8):
            for minus in range(plus + 4):
                check = check_comparison(
                    "int8",
                    compared(n, lost=range(minus), gained=range(n - plus, n), correlations=None),
                    int8_gates(accuracy_drop_points=0.9999),
                )[0]
                if check.outcome == "passed":
                    terms = [minus, plus, n - minus - plus]
                    chance += stats.multinomial.pmf(terms, n, [lost, gained, 1 - lost - gained])
        assert 0 < chance <= self.MOST

    @pytest.mark.parametrize("n", [30, 60, 72, 100, 200, 300])
    @pytest.mark.parametrize("bad", [0.0501, 0.07])
    def test_tail_of_bad_maps(self, n: int, bad: float) -> None:
        chance = self.shown(
            lambda count: compared(n, correlations=[0.5] * count), n, bad, "int8_map_pearson_p5", Gates()
        )
        assert chance <= self.MOST

    @pytest.mark.parametrize("n", [60, 200, 400, 800])
    @pytest.mark.parametrize(("score", "share"), [(0.0, 0.021), (-1.0, 0.0101), (-1.0, 0.0125)])
    def test_few_lost_or_opposite_maps(self, n: int, score: float, share: float) -> None:
        """21 of 1,000 unrelated maps, or 11 opposite ones, reduce the mean by more than 0.02."""
        chance = self.shown(
            lambda count: compared(n, correlations=[score] * count), n, share, "int8_map_pearson_mean", Gates()
        )
        assert chance <= self.MOST


class TestFalsePassRateOfFaithfulness:
    """Maps that are on average as faithful as random ones pass in at most 1 of 40 draws."""

    def outcome(self, margins: np.ndarray) -> str:
        curves = 0.5 + margins / 2, 0.5 - margins / 2
        found = _summed_up(curves[1], curves[0], np.zeros(len(margins)), SHARE)
        check = check_faithfulness("int8", found, len(margins), Gates())
        return check.outcome

    @pytest.mark.parametrize(
        "draw",
        [
            lambda rng, n: rng.normal(0, 0.1, n),
            lambda rng, n: 0.1 * (1 - rng.exponential(1, n)),
            lambda rng, n: 0.1 * (0.3 - rng.gamma(0.3, 1, n)),
        ],
        ids=["normal", "left-skewed exponential", "left-skewed gamma"],
    )
    @pytest.mark.parametrize("n", [30, MAX_FAITHFULNESS_SAMPLES])
    def test_skewed_margins_of_mean_zero(self, draw: Callable[..., np.ndarray], n: int) -> None:
        rng = np.random.default_rng(0)
        shown = sum(self.outcome(draw(rng, n)) == "passed" for _ in range(60))
        assert shown <= 2

    @pytest.mark.parametrize("n", [30, MAX_FAITHFULNESS_SAMPLES])
    def test_few_images_that_lose_what_the_others_gain(self, n: int) -> None:
        """95 of 100 images gain 0.02 and the others lose 0.38; 1 of 5 draws of 30 images contains no losing image."""
        chance = 0.0
        for bad in range(n + 1):
            if self.outcome(np.where(np.arange(n) < bad, -0.38, 0.02)) != "passed":
                break
            chance += stats.binom.pmf(bad, n, 0.05)
        assert chance <= 0.0255

    def test_typical_margin_passes(self) -> None:
        rng = np.random.default_rng(0)
        assert self.outcome(rng.normal(0.1, 0.1, MAX_FAITHFULNESS_SAMPLES)) == "passed"

    def test_margin_of_an_image_is_capped_at_one_half(self) -> None:
        found = _summed_up(np.array([0.0, 1.0]), np.array([1.0, 0.0]), np.array([0.0, 0.5]), SHARE)
        assert found.margin == 0.0


@pytest.mark.parametrize(
    ("n", "lost", "bound"), [(100, 0, 1.0), (30, 0, 1.0), (200, 1, 2.0), (390, 2, 1.0), (60, 3, 10.0)]
)
def test_interval_at_samples_needed_ends_at_the_bound(n: int, lost: int, bound: float) -> None:
    """With `samples_needed` images and the same proportion lost, the interval ends near the bound."""
    scores = (np.arange(n) < lost).astype(np.float64)
    _, high = ends(mean_interval(scores, DIFFERENCE, 100))
    assert high > bound
    needed = samples_needed(n, 100 * lost / n, high, bound, worst=100.0)
    assert needed is not None
    again = (np.arange(needed) < lost * needed / n).astype(np.float64)
    _, high = ends(mean_interval(again, DIFFERENCE, 100))
    assert high == pytest.approx(bound, rel=0.12)
    if not lost:
        assert high <= bound


def test_width_falls_with_the_square_root_without_a_worst_score() -> None:
    # 1.2 beyond 0.2 must shrink to 0.8: (1.2 / 0.8)² = 2.25 times as many, rounded up to two digits.
    assert samples_needed(100, 0.2, 1.4, 1.0) == 230


def test_estimate_on_the_bound_needs_no_finite_number_of_images() -> None:
    assert samples_needed(100, 1.0, 2.0, 1.0) is None


def test_unseen_share_has_a_probability_of_one_in_40() -> None:
    """If this share of images fails, n images contain no failure in 1 of 40 draws."""
    for n in (1, 30, 400):
        assert (1 - unseen_share(n)) ** n == pytest.approx(0.025)
