"""Bounding boxes in model input coordinates."""

import numpy as np
import pytest

from kdedge_runtime.boxes import box_mask, boxes_at_input
from kdedge_runtime.modalities.image import ImageInput

BOXES = np.array([[2.0, 1.0, 5.0, 3.0]], dtype=np.float32)


def test_box_mask_covers_pixel_centers_inside() -> None:
    expected = np.zeros((4, 6), dtype=bool)
    expected[1:3, 2:5] = True
    assert (box_mask(BOXES, 4, 6)[0] == expected).all()
    # A narrower box excludes the first pixel center.
    narrower = np.array([[2.6, 1.0, 5.0, 3.0]], dtype=np.float32)
    assert box_mask(narrower, 4, 6)[0, 1].tolist() == [False, False, False, True, True, False]


def test_edge_centers_belong_to_the_right_and_lower_box() -> None:
    """Adjacent boxes neither share nor omit pixels."""
    left_above, right_below = np.array([[0.0, 0.0, 2.5, 1.5], [2.5, 1.5, 6.0, 4.0]], dtype=np.float32)
    first, second = box_mask(np.stack([left_above, right_below]), 4, 6)
    assert np.argwhere(first).tolist() == [[0, 0], [0, 1]]
    assert np.argwhere(second)[0].tolist() == [1, 2] and second.sum() == 3 * 4


def test_boxes_are_float32() -> None:
    spec = ImageInput(48, 48, (0.5,) * 3, (0.5,) * 3)
    assert boxes_at_input(BOXES.astype(np.float64), 200, 320, spec).dtype == np.float32


@pytest.mark.parametrize("rule", [{}, {"resize": "squash"}, {"crop_fraction": 0.8}, {"resize": "letterbox"}])
def test_boxes_follow_preprocessing(rule: dict[str, object]) -> None:
    """Draw the box, preprocess the image and compare the result."""
    spec = ImageInput(48, 48, (0.5,) * 3, (0.5,) * 3, **rule)  # type: ignore[arg-type]
    picture = np.zeros((200, 320, 3), dtype=np.uint8)
    picture[50:130, 100:260] = 255
    seen = spec.preprocess(picture)[:, :, 0] > 127
    boxes = boxes_at_input(np.array([[100.0, 50.0, 260.0, 130.0]], dtype=np.float32), 200, 320, spec)
    found = box_mask(boxes, 48, 48)[0]
    assert (found != seen).mean() < 0.03 and seen.any()
