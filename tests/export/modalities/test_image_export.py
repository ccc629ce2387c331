"""Images at export: corruptions and edge maps."""

import numpy as np
import pytest
from scipy import ndimage
from validate_toys import pictures as toy_pictures

from kdedge_export.metrics.resampling import area_mean
from kdedge_export.modalities.image import IMAGE, edge_maps
from kdedge_runtime.modalities.image import ImageInput
from kdedge_runtime.util.arrays import Pixels

IMAGES = toy_pictures(24)


def test_edge_maps_match_scipys_sobel_averaged_by_area() -> None:
    gray = IMAGES.astype(np.float64) @ [0.299, 0.587, 0.114]
    strength = [np.hypot(ndimage.sobel(one, 0, mode="nearest"), ndimage.sobel(one, 1, mode="nearest")) for one in gray]
    positions = np.stack(strength).reshape(len(IMAGES), 8, 4, 8, 4).mean(axis=(2, 4))
    assert area_mean(edge_maps(IMAGES), 8, 8) == pytest.approx(positions, rel=1e-3)


def corrupted(images: Pixels, name: str) -> Pixels:
    return np.stack([IMAGE.corruptions[name](image, number) for number, image in enumerate(images)])


@pytest.mark.parametrize("name", list(IMAGE.corruptions))
def test_corruptions_are_reproducible(name: str) -> None:
    worse = corrupted(IMAGES, name)
    assert worse.shape == IMAGES.shape and worse.dtype == np.uint8
    assert (worse != IMAGES).any() and (worse == corrupted(IMAGES, name)).all()


def test_severities_match_their_names() -> None:
    gray = np.full((8, 64, 64, 3), 128, dtype=np.uint8)
    noise = corrupted(gray, "noise, σ = 10 of 255").astype(np.float64) - 128
    assert noise.std() == pytest.approx(10, rel=0.02) and abs(noise.mean()) < 0.2
    assert (noise[0] != noise[1]).any()
    assert (corrupted(gray, "brightness × 0.6") == 77).all()
    assert (corrupted(gray, "brightness × 1.5") == 192).all()


@pytest.mark.parametrize("side", [16, 28, 31])
def test_display_samples_of_small_inputs(side: int) -> None:
    spec = ImageInput(side, side, (0.5,) * 3, (0.5,) * 3)
    samples = IMAGE.display_samples(spec, 3)
    assert samples.shape == (3, side, side, 3) and samples.std() > 10
