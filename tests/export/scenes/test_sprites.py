"""Sprites of the runtime's synthetic camera: rendered from the drawings, small, with exact opacity."""

import numpy as np
from PIL import Image

from kdedge_export.scenes import LABELS
from kdedge_export.scenes.sprites import render_sprites
from kdedge_runtime.sources import synthetic

SHEET = render_sprites()


def test_file_is_rendered_from_the_drawings() -> None:
    rendered = np.asarray(SHEET).astype(int)
    with Image.open(synthetic.SPRITE_FILE) as file:
        stored = np.asarray(file.convert("RGBA")).astype(int)
    assert stored.shape == rendered.shape
    # The palette rounds colors and opacity; other drawings differ by 60 and more.
    assert np.abs(stored[..., 3] - rendered[..., 3]).mean() < 3
    is_object = rendered[..., 3] >= 128
    assert np.abs(stored - rendered)[is_object].mean() < 15
    assert (is_object == (stored[..., 3] >= 128)).mean() > 0.99


def test_classes_are_those_of_the_scenes() -> None:
    assert synthetic.LABELS == LABELS
    assert SHEET.height == len(LABELS) * synthetic.SPRITE_PX and SHEET.width % synthetic.SPRITE_PX == 0


def test_sprites_are_whole_and_differ() -> None:
    side = synthetic.SPRITE_PX
    opacity = np.asarray(SHEET)[..., 3].reshape(len(LABELS), side, -1, side).swapaxes(1, 2)
    sprites = opacity.reshape(-1, side, side)
    assert not (sprites[:, [0, -1], :].any() or sprites[:, :, [0, -1]].any()), "nothing is cut off"
    shares = (sprites >= 128).mean(axis=(1, 2))
    assert shares.min() > 0.05 and shares.max() < 0.6
    assert len({sprite.tobytes() for sprite in sprites}) == len(sprites)


def test_file_is_small() -> None:
    assert synthetic.SPRITE_FILE.stat().st_size < 40_000
