"""Sprites of the runtime's synthetic camera, rendered from the drawings.

To write them again after a change of a drawing: `python -m kdedge_export.scenes.sprites`.
"""

import numpy as np
from PIL import Image

from kdedge_export.scenes.backdrops import backdrop
from kdedge_export.scenes.icons import LABELS, draw_icon
from kdedge_export.scenes.painting import Pose, paint
from kdedge_export.scenes.scene import random_palette
from kdedge_runtime.sources.synthetic import SPRITE_EXTENT, SPRITE_FILE, SPRITE_PX
from kdedge_runtime.util.files import atomic_path

__all__ = ["render_sprites"]

_VARIANTS = 8
"""Sprites per class, with different proportions and colors."""
_COLORS = 128


def render_sprites() -> Image.Image:
    """Render all sprites.

    Returns:
        RGBA image: one row of square sprites per class, in the order of `LABELS`.
    """
    sheet = Image.new("RGBA", (_VARIANTS * SPRITE_PX, len(LABELS) * SPRITE_PX))
    for row, label in enumerate(LABELS):
        for column in range(_VARIANTS):
            sprite = _render_sprite(label, np.random.default_rng((row, column)))
            sheet.paste(sprite, (column * SPRITE_PX, row * SPRITE_PX))
    return sheet


def _render_sprite(label: str, rng: np.random.Generator) -> Image.Image:
    shape = (SPRITE_PX, SPRITE_PX, 3)
    parts, palette = draw_icon(label, rng), random_palette(rng, backdrop(rng, SPRITE_PX, SPRITE_PX))
    pose = Pose(SPRITE_PX / 2, SPRITE_PX / 2, SPRITE_PX / (2 * SPRITE_EXTENT), 0.0)
    on_black, on_white = np.zeros(shape, np.uint8), np.full(shape, 255, np.uint8)
    paint(on_black, parts, pose, palette)
    paint(on_white, parts, pose, palette)
    # A pixel of color c and opacity a is a·c on black, and a·c + (1 - a)·255 on white.
    opacity = 1 - (on_white.astype(float) - on_black).mean(axis=2, keepdims=True) / 255
    color = np.clip(on_black / np.maximum(opacity, 1 / 255), 0, 255)
    return Image.fromarray(np.concatenate([color, 255 * opacity], axis=2).round().astype(np.uint8))


if __name__ == "__main__":
    with atomic_path(SPRITE_FILE) as temporary:
        # A palette of colors with opacity makes the file a quarter as large.
        render_sprites().quantize(_COLORS, Image.Quantize.FASTOCTREE).save(temporary, "PNG", optimize=True)
