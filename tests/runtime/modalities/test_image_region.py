"""Regions of images: what `--crop` accepts, and the pixels it selects."""

import numpy as np
import pytest

from kdedge_runtime.errors import UsageError
from kdedge_runtime.modalities.image_region import ImageRegion, parse_image_regions

GROUND = np.arange(36 * 64 * 3, dtype=np.uint32).astype(np.uint8).reshape(36, 64, 3)


@pytest.mark.parametrize(
    ("text", "name", "box"),
    [
        ("0.25,0,0.5,1", "region-1", (16, 0, 32, 36)),
        ("door=0.25,0,0.5,1", "door", (16, 0, 32, 36)),
        ("front door=1,2,64,36", "front door", (1, 2, 64, 36)),
        ("a=b=0,0,1,1", "a=b", (0, 0, 64, 36)),
        ("ü/#+=0,0,2,1", "ü/#+", (0, 0, 2, 1)),
        (" spaced =0, 0, 1, 1", "spaced", (0, 0, 64, 36)),
    ],
)
def test_pixels_and_fractions(text: str, name: str, box: tuple[int, ...]) -> None:
    (region,) = parse_image_regions([text])
    assert (region.name, region.box(36, 64)) == (name, box)
    left, top, right, bottom = box
    np.testing.assert_array_equal(region.cut(GROUND), GROUND[top:bottom, left:right])


def test_cut_copies_no_pixels() -> None:
    assert np.shares_memory(ImageRegion("a", (0.0, 0.0, 0.5, 0.5)).cut(GROUND), GROUND)


def test_thin_fractions_keep_one_pixel() -> None:
    for edges in ((0.0, 0.0, 1e-6, 1e-6), (1 - 1e-6, 1 - 1e-6, 1.0, 1.0)):
        assert ImageRegion("a", edges).cut(GROUND).shape == (1, 1, 3)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("", "not a region"),
        ("0,0,1", "not a region"),
        ("0,0,1,1,1", "not a region"),
        ("a,0,1,1", "not a region"),
        ("0,0,nan,1", "not a region"),
        ("0,0,inf,1", "not a region"),
        ("-0.1,0,0.5,1", "-0.1 is negative"),
        ("0,0,1.2,1", "exceeds the image"),
        ("0,0,0.5,200", "mixes pixels and fractions"),
        ("0.5,0,0.5,1", "empty or inverted"),
        ("0,0.8,1,0.2", "empty or inverted"),
        ("300,0,200,100", "empty or inverted"),
        ("=0,0,1,1", "the name needs 1 to 60"),
        ("a\x1b=0,0,1,1", "the name needs 1 to 60"),
        (f"{'a' * 61}=0,0,1,1", "the name needs 1 to 60"),
    ],
)
def test_invalid_region_is_a_usage_error(text: str, key: str) -> None:
    with pytest.raises(UsageError, match=key) as raised:
        parse_image_regions(["0,0,1,1", text])
    assert raised.value.exit_code == 2
    assert "X1" in str(raised.value)


def test_names_are_unique() -> None:
    assert [region.name for region in parse_image_regions(["0,0,1,1", "a=0,0,1,1", "0,0,1,1"])] == [
        "region-1",
        "a",
        "region-3",
    ]
    for texts in (["a=0,0,1,1", "a=0,0,0.5,1"], ["0,0,1,1", "region-1=0,0,1,1"]):
        with pytest.raises(UsageError, match="2 regions have the name"):
            parse_image_regions(texts)


def test_pixels_beyond_the_image_name_its_size() -> None:
    region = ImageRegion.parse("door=10,10,65,36", "")
    assert region.cut(np.zeros((36, 65, 3), np.uint8)).shape == (26, 55, 3)
    with pytest.raises(UsageError, match=r"door=10,10,65,36 exceeds the image of 64 × 36 px"):
        region.cut(GROUND)
