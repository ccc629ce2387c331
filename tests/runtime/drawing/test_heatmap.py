"""Heat maps and statistics of saliency maps."""

import itertools

import numpy as np
import pytest

from kdedge_runtime.drawing.heatmap import (
    HeatStats,
    SmoothedScale,
    contrast,
    display_heat,
    heat_stats,
    normalize_heatmap,
    peak,
)

WHOLE = (0.0, 0.0, 100.0, 50.0)


def _map(**positions: float) -> np.ndarray:
    result = np.full((4, 4), -1.0, dtype=np.float32)
    for place, value in positions.items():
        result[int(place[1]), int(place[2])] = value
    return result


def test_negative_values_are_clipped_and_heat_is_at_most_one() -> None:
    heat = normalize_heatmap(np.array([[-3.0, 0.0], [1.0, 4.0]], dtype=np.float32), scale=2.0)
    assert heat.dtype == np.float32
    np.testing.assert_array_equal(heat, [[0, 0], [0.5, 1]])


def test_scale_saturates_heat_and_non_positive_scale_gives_zero() -> None:
    weak = np.array([[0.0, 0.25], [0.5, -1.0]])
    np.testing.assert_array_equal(normalize_heatmap(weak, 0.5), [[0, 0.5], [1, 0]])
    for scale in (0.0, -1.0):
        cold = normalize_heatmap(weak, scale)
        assert cold.dtype == np.float32 and cold.shape == (2, 2) and not cold.any()


def test_contrast_mean_uses_float64() -> None:
    """Check against float64, because a float16 mean is inaccurate."""
    large = np.full((1, 1000), 0.1, np.float16)
    large[0, 0] = 1.0
    expected = 1.0 - float(large.astype(np.float64).mean())
    assert contrast(large) == pytest.approx(expected, abs=1e-6)


def test_map_without_positive_values_has_no_heat() -> None:
    cold = np.full((3, 3), -1.0, dtype=np.float32)
    assert peak(cold) == 0.0
    assert not normalize_heatmap(cold, peak(cold)).any()


@pytest.mark.parametrize("level", [0.2, 5.0])
def test_flat_map_has_no_heat_and_typical_map_has_full_heat(level: float) -> None:
    flat = np.full((4, 4), level, np.float32)
    assert contrast(flat) == pytest.approx(0.0)
    assert not display_heat(flat, peak(flat), typical_contrast=1.0).any()
    typical = _map(c13=2.0)
    assert contrast(typical) == pytest.approx(2.0 - 2.0 / 16)
    assert display_heat(typical, 2.0, contrast(typical)).max() == 1.0
    assert display_heat(typical, 2.0, contrast(typical) / 3).max() == 1.0, "heat is at most one"


def test_half_contrast_gives_half_heat() -> None:
    weak = _map(c13=2.0)
    np.testing.assert_allclose(display_heat(weak, 2.0, 2 * contrast(weak)), normalize_heatmap(weak, 2.0) / 2, rtol=1e-6)
    np.testing.assert_array_equal(display_heat(weak, 2.0, None), normalize_heatmap(weak, 2.0))


def test_center_follows_shift_within_frame() -> None:
    stats = heat_stats(_map(c13=2.0), WHOLE, 50, 100, shift=(-0.5, 0.25))
    assert (stats.cx, stats.cy) == pytest.approx((3 / 4, 1.75 / 4))
    assert heat_stats(_map(c13=2.0), WHOLE, 50, 100, shift=(1.0, 0.0)).cx == 1.0


@pytest.mark.parametrize(("place", "shift", "edge"), [("c00", (-2.0, -3.0), 0.0), ("c33", (2.0, 3.0), 1.0)])
def test_shifted_position_is_clipped_to_visible_box(place: str, shift: tuple[float, float], edge: float) -> None:
    """Use a visible box in the center of the frame."""
    stats = heat_stats(_map(**{place: 2.0}), (20.0, 10.0, 80.0, 40.0), 50, 100, shift)
    assert (stats.cx, stats.cy) == pytest.approx((0.2 + 0.6 * edge, 0.2 + 0.6 * edge))


def test_heat_in_horizontal_letterbox_is_clipped_to_frame() -> None:
    letterbox = (-140.0, 0.0, 500.0, 640.0)  # letterbox of a 360 × 640 frame
    assert heat_stats(_map(c00=1.0), letterbox, 640, 360).cx == 0.0
    assert heat_stats(_map(c33=1.0), letterbox, 640, 360).cx == 1.0


def test_area_counts_values_above_half_maximum() -> None:
    assert heat_stats(_map(c00=4.0, c01=2.0, c02=1.9, c03=2.1), WHOLE, 50, 100).area == 2 / 16


@pytest.mark.parametrize(("positions", "entropy"), [((1.0, 1.0), 1.0), ((3.0, 0.0), 0.0), ((3.0, 1.0), 0.811278)])
def test_entropy_of_two_positions_matches_binary_entropy(positions: tuple[float, float], entropy: float) -> None:
    assert heat_stats(np.array([positions], np.float32), WHOLE, 50, 100).entropy == pytest.approx(entropy, abs=1e-6)


@pytest.mark.parametrize("side", range(2, 40))
def test_entropy_stays_within_range(side: int) -> None:
    stats = heat_stats(np.full((side, side + 1), 0.1, np.float32), WHOLE, 50, 100)
    assert stats.entropy is not None and stats.entropy <= 1


def test_smoothed_scale_starts_at_first_peak() -> None:
    assert SmoothedScale().update(0.25, 0.0) == 0.25


def test_single_position_gives_its_location() -> None:
    stats = heat_stats(_map(c13=2.0), WHOLE, 50, 100)
    assert stats == HeatStats(cx=0.875, cy=0.375, area=1 / 16, entropy=0.0)


def test_center_is_in_frame_coordinates() -> None:
    stats = heat_stats(_map(c00=1.0), (140.0, 0.0, 500.0, 360.0), 360, 640)
    assert stats.cx == pytest.approx((140 + 45) / 640)
    assert stats.cy == pytest.approx(45 / 360)


def test_heat_in_vertical_letterbox_is_clipped_to_frame() -> None:
    letterbox = (0.0, -140.0, 640.0, 500.0)  # letterbox of a 640 × 360 frame
    assert heat_stats(_map(c00=1.0), letterbox, 360, 640).cy == 0.0
    assert heat_stats(_map(c33=1.0), letterbox, 360, 640).cy == 1.0
    assert heat_stats(_map(c10=1.0, c20=1.0), letterbox, 360, 640).cy == pytest.approx(0.5)


def test_uniform_map_has_full_area_and_entropy() -> None:
    stats = heat_stats(np.full((7, 5), 0.3, dtype=np.float32), WHOLE, 50, 100)
    assert (stats.cx, stats.cy, stats.area) == pytest.approx((0.5, 0.5, 1.0))
    assert stats.entropy == pytest.approx(1.0)


def test_two_equal_positions_of_sixteen_have_entropy_one_quarter() -> None:
    # ln 2 / ln 16 = 1/4
    assert heat_stats(_map(c00=1.0, c33=1.0), WHOLE, 50, 100).entropy == pytest.approx(0.25)


@pytest.mark.parametrize("value", [0.0, -2.0])
def test_map_without_evidence_has_no_location(value: float) -> None:
    assert heat_stats(np.full((4, 4), value, np.float32), WHOLE, 50, 100) == HeatStats(None, None, 0.0, None)


def test_one_by_one_map_is_defined() -> None:
    assert heat_stats(np.ones((1, 1), np.float32), WHOLE, 50, 100) == HeatStats(0.5, 0.5, 1.0, 0.0)


def test_smoothed_scale_rises_immediately_and_decays_by_half_life() -> None:
    scale = SmoothedScale(half_life_s=2.0)
    assert scale.update(4.0, 0.0) == 4.0
    for _ in range(10):
        latest = scale.update(0.0, 0.2)
    assert latest == pytest.approx(2.0)
    assert scale.update(3.0, 0.2) == 3.0


@pytest.mark.parametrize(("fps", "share"), [(30.0, 0.15), (10.0, 0.4)])
def test_noisy_peaks_do_not_cause_flicker(fps: float, share: float) -> None:
    generator = np.random.default_rng(0)
    peaks = 1.0 + 0.3 * generator.standard_normal(300).clip(-2, 2)
    scale = SmoothedScale()
    shown = np.array([scale.update(float(peak), 1 / fps) for peak in peaks])[30:]
    # Normalized by its own peak, a constant value would change with the peak.
    flicker = np.abs(np.diff(1 / shown)).mean() / (1 / shown).mean()
    flicker_alone = np.abs(np.diff(1 / peaks)).mean() / (1 / peaks).mean()
    assert flicker < share * flicker_alone
    assert (peaks[30:] <= shown + 1e-9).all(), "heat is at most one"


@pytest.mark.parametrize("fps", [30.0, 5.0])
def test_scale_adapts_to_weaker_evidence_in_seconds(fps: float) -> None:
    scale = SmoothedScale()
    for _ in range(60):
        scale.update(10.0, 1 / fps)
    heat = [1.0 / scale.update(1.0, 1 / fps) for _ in range(round(4 * fps))]
    assert heat[0] < 0.13, "weak evidence directly after strong evidence is displayed weakly"
    assert heat[-1] == 1.0, "full heat after 3.3 half-lives at any frame rate"
    assert all(later >= earlier for earlier, later in itertools.pairwise(heat)), "increases monotonically"


def test_scale_adapts_to_stronger_evidence_immediately() -> None:
    scale = SmoothedScale()
    scale.update(1.0, 0.0)
    assert scale.update(10.0, 1 / 30) == 10.0
