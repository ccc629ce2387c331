"""Overlays: heat map, unchanged area outside the visible box, and captions."""

import time

import numpy as np
import pytest

from kdedge_runtime.drawing.caption import Caption
from kdedge_runtime.drawing.colormap import heat_ramp
from kdedge_runtime.drawing.overlay import draw_overlay

CROP = (140.0, 0.0, 500.0, 360.0)
GROUND = np.random.default_rng(0).integers(0, 256, (360, 640, 3), dtype=np.uint8)


def test_area_outside_visible_box_is_unchanged() -> None:
    drawn = draw_overlay(GROUND, np.ones((7, 7), np.float32), CROP)
    np.testing.assert_array_equal(drawn[:, :140], GROUND[:, :140])
    np.testing.assert_array_equal(drawn[:, 500:], GROUND[:, 500:])
    assert not np.array_equal(drawn[:, 145:495], GROUND[:, 145:495])


def test_opacity_is_proportional_to_heat() -> None:
    ramp = heat_ramp().astype(float)
    for heat in (0.25, 0.5, 1.0):
        drawn = draw_overlay(GROUND, np.full((7, 7), heat, np.float32), (0, 0, 640, 360), opacity=0.6)
        cover = heat * 0.6
        expected = GROUND * (1 - cover) + ramp[round(heat * 255)] * cover
        assert np.abs(drawn - expected).max() <= 2


def test_zero_heat_leaves_image_unchanged() -> None:
    for heat in (None, np.zeros((7, 7), np.float32)):
        np.testing.assert_array_equal(draw_overlay(GROUND, heat, (0, 0, 640, 360)), GROUND)


def test_heat_is_at_its_map_position() -> None:
    heat = np.zeros((4, 4), np.float32)
    heat[3, 0] = 1.0
    black = np.zeros((360, 640, 3), np.uint8)
    glow = draw_overlay(black, heat, CROP)[2:-2, 142:498].astype(float).sum(axis=2)
    rows, columns = np.mgrid[2:358, 142:498]
    assert (columns * glow).sum() / glow.sum() == pytest.approx(140 + 45, abs=12)
    assert (rows * glow).sum() / glow.sum() == pytest.approx(315, abs=12)


def test_letterbox_heat_is_clipped_to_image() -> None:
    """Compare with the center crop of an overlay on an image that includes the borders."""
    heat = np.random.default_rng(1).random((4, 4)).astype(np.float32)
    black = np.zeros((360, 640, 3), np.uint8)
    drawn = draw_overlay(black, heat, (0.0, -140.0, 640.0, 500.0))
    whole = draw_overlay(np.zeros((640, 640, 3), np.uint8), heat, (0.0, 0.0, 640.0, 640.0))
    assert np.abs(drawn.astype(int) - whole[140:500]).max() <= 3
    assert drawn.any()
    np.testing.assert_array_equal(draw_overlay(black, None, (0.0, -140.0, 640.0, 500.0)), black)


def test_letterboxed_strip_needs_no_extra_memory() -> None:
    strip = np.zeros((4, 3000, 3), np.uint8)
    assert draw_overlay(strip, np.ones((4, 4), np.float32), (0.0, -1498.0, 3000.0, 1502.0)).shape[1] % 3000 == 0


@pytest.mark.parametrize("shift", [(0.5, 0.0), (0.0, -0.4), (-0.25, 1.0)])
def test_shift_moves_heat_by_fractions_of_a_map_pixel(shift: tuple[float, float]) -> None:
    heat = np.zeros((6, 6), np.float32)
    heat[2, 3] = 1.0
    black = np.zeros((360, 360, 3), np.uint8)
    rows, columns = np.mgrid[:360, :360] + 0.5
    places = []
    for moved in ((0.0, 0.0), shift):
        glow = draw_overlay(black, heat, (0, 0, 360, 360), shift=moved).astype(float).sum(axis=2)
        places.append(((columns * glow).sum() / glow.sum(), (rows * glow).sum() / glow.sum()))
    (across, down), (moved_across, moved_down) = places
    assert (across, down) == pytest.approx((210, 150), abs=2)
    assert (moved_across - across, moved_down - down) == pytest.approx((60 * shift[0], 60 * shift[1]), abs=2)


def test_shift_extends_edge_values() -> None:
    drawn = draw_overlay(
        np.zeros((90, 90, 3), np.uint8), np.ones((3, 3), np.float32), (0, 0, 90, 90), shift=(0.7, -0.7)
    )
    assert (drawn == drawn[45, 45])[2:-2, 2:-2].all()


def test_input_frame_is_not_modified() -> None:
    frame = GROUND.copy()
    frame.setflags(write=False)
    draw_overlay(frame, np.ones((7, 7), np.float32), CROP, Caption("label", "50%", 0.5))
    np.testing.assert_array_equal(frame, GROUND)


@pytest.mark.parametrize("shape", [(1, 1), (8, 300), (32, 32), (97, 61), (360, 640), (1080, 1920)])
def test_caption_fits_any_image_size(shape: tuple[int, int]) -> None:
    height, width = shape
    caption = Caption("a label that is a good deal longer than any picture is wide " * 3, "99%", 0.987, ("12 ms old",))
    drawn = draw_overlay(np.zeros((*shape, 3), np.uint8), None, (0, 0, width, height), caption)
    assert drawn.shape[0] % height == drawn.shape[1] % width == 0
    assert min(drawn.shape[:2]) >= 120
    assert drawn.max() > 200, "caption is not visible"


def test_strip_enlargement_is_limited() -> None:
    drawn = draw_overlay(np.zeros((2, 30_000, 3), np.uint8), None, (0, 0, 30_000, 2), Caption("label", "50%", 0.5))
    assert drawn.shape == (4, 60_000, 3), "within the JPEG size limit"


def test_tiny_visible_box_is_drawn() -> None:
    ground = np.zeros((300, 300, 3), np.uint8)
    for right in (150.2, 151, 152):
        drawn = draw_overlay(ground, np.ones((7, 7), np.float32), (150, 150, right, right))
        assert drawn[150, 150].any()
        assert not drawn[:149].any()


def test_long_label_is_truncated() -> None:
    started = time.perf_counter()
    draw_overlay(np.zeros((360, 640, 3), np.uint8), None, (0, 0, 640, 360), Caption("x" * 100_000, "50%", 0.5))
    assert time.perf_counter() - started < 5


def test_caption_is_legible_on_white_and_black() -> None:
    for shade in (0, 255):
        drawn = draw_overlay(
            np.full((360, 640, 3), shade, np.uint8), None, (0, 0, 640, 360), Caption("stop", "90%", 0.9)
        )
        plate = drawn[300:340, 12:150].astype(int)
        assert plate.max() - plate.min() > 150


def test_bar_length_is_probability() -> None:
    def orange(p: float) -> int:
        drawn = draw_overlay(
            np.zeros((360, 640, 3), np.uint8), None, (0, 0, 640, 360), Caption("stop", f"{p:.0%}", p)
        ).astype(int)
        return int(((drawn[..., 0] > 200) & (drawn[..., 2] < 100)).sum())

    assert orange(0.0) == 0
    assert orange(0.50) == pytest.approx(orange(1.0) / 2, rel=0.1)


def test_ramp_lightness_is_monotonic() -> None:
    linear = (heat_ramp() / 255.0) ** 2.2
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    assert heat_ramp().shape == (256, 3)
    assert luminance[-1] > 0.7 > 0.1 > luminance[0]
    assert (np.diff(luminance) > -2e-3).all()
