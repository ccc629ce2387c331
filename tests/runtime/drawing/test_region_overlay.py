"""Overlays of several regions: each map, outline and caption in its place."""

import numpy as np
import pytest
from toy_streams import Collector, Frames

from kdedge_runtime.drawing.caption import Caption
from kdedge_runtime.drawing.overlay import draw_overlay
from kdedge_runtime.drawing.region_overlay import RegionDrawing, draw_region_overlay
from kdedge_runtime.modalities.image_region import parse_image_regions
from kdedge_runtime.model import Model
from kdedge_runtime.stream.runner import run
from kdedge_runtime.stream.settings import StreamSettings

GROUND = np.random.default_rng(0).integers(0, 256, (360, 640, 3), dtype=np.uint8)
HEAT = np.random.default_rng(1).random((7, 7)).astype(np.float32)
CAPTION = Caption("door: open", "93%", 0.93)


def _region(box: tuple[int, int, int, int], **changes: object) -> RegionDrawing:
    left, top, right, bottom = box
    values = {"heat": HEAT, "visible": (0.0, 0.0, float(right - left), float(bottom - top)), "caption": CAPTION}
    return RegionDrawing(box, **values | changes)


def test_map_is_the_one_of_the_crop_alone() -> None:
    box = (300, 20, 620, 340)
    drawn = draw_region_overlay(GROUND, [_region(box)], 0.6)
    alone = draw_overlay(np.ascontiguousarray(GROUND[20:340, 300:620]), HEAT, (0, 0, 320, 320), opacity=0.6)
    np.testing.assert_array_equal(drawn[22:250, 302:618], alone[2:230, 2:318], "inside the outline, above the caption")


def test_outside_of_all_regions_is_unchanged() -> None:
    drawn = draw_region_overlay(GROUND, [_region((0, 0, 200, 360)), _region((440, 0, 640, 360))], 0.6)
    np.testing.assert_array_equal(drawn[:, 200:440], GROUND[:, 200:440])
    for columns in (slice(0, 200), slice(440, 640)):
        assert np.abs(drawn[:, columns].astype(int) - GROUND[:, columns]).mean() > 5


def test_letterbox_of_a_region_stays_inside_it() -> None:
    box = (100, 150, 400, 210)
    bare = draw_region_overlay(GROUND, [_region(box, heat=None)], 0.6)
    drawn = draw_region_overlay(GROUND, [_region(box, visible=(0.0, -120.0, 300.0, 180.0))], 0.6)
    changed = (bare != drawn).any(axis=2)
    assert changed[150:210, 100:400].any()
    changed[150:210, 100:400] = False
    assert not changed.any()


@pytest.mark.parametrize(
    ("box", "rows"),
    [
        ((300, 20, 620, 340), slice(250, 340)),
        ((300, 100, 360, 130), slice(130, 200)),
        ((300, 310, 360, 360), slice(240, 310)),
    ],
    ids=["inside", "below", "above"],
)
def test_caption_is_in_the_region_or_beside_it(box: tuple[int, int, int, int], rows: slice) -> None:
    drawn = draw_region_overlay(GROUND, [_region(box, heat=None)], 0.6)
    changed = (drawn != GROUND).any(axis=2)
    left, top, right, bottom = box
    changed[[top, top + 1, bottom - 2, bottom - 1], left:right] = False
    changed[top:bottom, [left, left + 1, right - 2, right - 1]] = False
    assert changed[rows].sum() > 0.95 * changed.sum() > 0


def test_caption_stays_in_the_image() -> None:
    for box in ((0, 0, 640, 8), (620, 0, 640, 360), (0, 350, 20, 360), (0, 0, 640, 360)):
        assert draw_region_overlay(GROUND, [_region(box)], 0.6).shape == GROUND.shape


def test_small_images_are_enlarged() -> None:
    small = np.ascontiguousarray(GROUND[:60, :90])
    drawn = draw_region_overlay(small, [_region((10, 10, 50, 50))], 1.0)
    assert drawn.shape == (240, 360, 3)


def test_each_region_has_its_own_scale(model: Model) -> None:
    """A weak map is as bright as a strong one beside it."""
    frame = np.full((240, 480, 3), 90, np.uint8)
    frame[40:100, 60:120] = (255, 0, 0)
    frame[40:100, 300:360] = (130, 80, 80)
    sink, alone = Collector(wants_overlay=True), Collector(wants_overlay=True)
    regions = parse_image_regions(["a=0,0,240,240", "b=240,0,480,240"])
    run(model, Frames(frame, frame), [sink], StreamSettings(regions=regions))
    run(model, Frames(frame, frame), [alone], StreamSettings(regions=regions[1:]))
    np.testing.assert_array_equal(
        sink.predictions[-1].overlay[:150, 260:], alone.predictions[-1].overlay[:150, 260:], "above the captions"
    )
