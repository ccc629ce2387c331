"""Rendered images of one object each, with an exact pixel mask.

They provide ground truth without a download: the label for the prediction and the mask for the saliency map. The
object's position is random, and its colors are independent of its class.
"""

import numpy as np
from PIL import Image, ImageDraw

from kdedge_export.scenes.backdrops import backdrop, random_colors
from kdedge_export.scenes.icons import LABELS, Part, draw_icon
from kdedge_export.scenes.painting import Palette, Pose, darker, paint
from kdedge_runtime.errors import UsageError
from kdedge_runtime.sources.synthetic import Scene
from kdedge_runtime.util.arrays import Pixels

__all__ = ["MIN_SIDE_PX", "random_palette", "random_pose", "render_scene"]

MIN_SIDE_PX = 32
"""Smallest side of a scene in pixels."""
_MIN_COVERAGE, _MAX_COVERAGE = 0.09, 0.27
"""Image coverage of the drawing; an outline adds up to a fifth."""
_MARGIN_PX = 1.5
_TILT = np.pi / 5
"""Largest rotation from upright, in radians."""
_TRIES = 16
_GRAIN = 14
"""Upper bound of the sensor noise, in gray levels."""
_UNIT_PX = 24
"""Pixels per drawing unit when measuring a drawing's area."""


def render_scene(label: str, rng: np.random.Generator, size: int | tuple[int, int] = 64) -> Scene:
    """Render a scene. The same label and generator state give the same pixels.

    Args:
        label: one of `LABELS`.
        rng: random number generator.
        size: `(height, width)` in pixels, or the side of a square; at least 32.

    Raises:
        UsageError: the label is unknown or the size too small.
    """
    height, width = (size, size) if isinstance(size, int) else size
    if label not in LABELS:
        raise UsageError(f"There is no drawing of {label!r}. Expected one of: {', '.join(LABELS)}.")
    if min(height, width) < MIN_SIDE_PX:
        raise UsageError(f"A scene of {width}x{height} px is too small. Expected at least {MIN_SIDE_PX} px per side.")
    image = backdrop(rng, height, width)
    parts = draw_icon(label, rng)
    mask = paint(image, parts, random_pose(rng, parts, height, width), random_palette(rng, image))
    grain = int(rng.integers(_GRAIN))
    noise = rng.integers(-grain, grain + 1, image.shape, dtype=np.int16)
    return Scene(np.clip(image + noise, 0, 255).astype(np.uint8), mask, label)


def random_pose(rng: np.random.Generator, parts: tuple[Part, ...], height: int, width: int) -> Pose:
    """Draw a random pose that keeps the object inside the image and covers 8 to 35% of it."""
    silhouette = np.concatenate([part.points for part in parts if part.is_solid])
    area, pixels = _unit_area(parts), height * width
    frame_px = np.array([width, height])
    wanted = np.sqrt(rng.uniform(_MIN_COVERAGE, _MAX_COVERAGE) * pixels / area)
    enough = 0.95 * np.sqrt(_MIN_COVERAGE * pixels / area)
    flipped = bool(rng.random() < 0.5)
    # Elongated objects fit only at some angles: use the first that is large enough, or else the best.
    scale, angle = 0.0, 0.0
    for candidate in rng.uniform(-_TILT, _TILT, _TRIES).tolist():
        extent = np.ptp(Pose(0, 0, 1, candidate, flipped).place(silhouette), axis=0)
        largest = float(min(wanted, *((frame_px - 2 * _MARGIN_PX) / extent)))
        if largest > scale:
            scale, angle = largest, candidate
        if scale >= enough:
            break
    placed = Pose(0, 0, scale, angle, flipped).place(silhouette)
    low, high = _MARGIN_PX - placed.min(axis=0), frame_px - _MARGIN_PX - placed.max(axis=0)
    x, y = (low + rng.random(2) * (high - low)).tolist()
    return Pose(x, y, scale, angle, flipped)


def random_palette(rng: np.random.Generator, ground: Pixels) -> Palette:
    """Draw random colors that contrast with the average background, by themselves or through an outline."""
    average = ground[::4, ::4].reshape(-1, 3).mean(axis=0)
    body, second, accent = random_colors(rng, 3)
    if np.abs(average - second).sum() > np.abs(average - body).sum():
        body = second
    outlines = (None, darker(body, 0.35), (250, 250, 245))
    return Palette(body, accent, outlines[rng.integers(3)], rng.uniform(-np.pi, 0))


def _unit_area(parts: tuple[Part, ...]) -> float:
    """Return the silhouette area in square drawing units."""
    canvas = Image.new("1", (3 * _UNIT_PX, 3 * _UNIT_PX))
    draw = ImageDraw.Draw(canvas)
    for part in parts:
        if part.is_solid or part.paint == "hole":
            draw.polygon(((part.points + 1.5) * _UNIT_PX).ravel().tolist(), fill=int(part.is_solid))
    return np.count_nonzero(np.asarray(canvas)) / _UNIT_PX**2
