"""Backgrounds of rendered scenes: a patterned ground with distractor shapes that belong to no class."""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageDraw

from kdedge_export.scenes.icons import Points, ellipse, ribbon
from kdedge_runtime.util.arrays import Pixels

__all__ = ["Color", "backdrop", "random_colors"]

Color: TypeAlias = tuple[int, int, int]
"""RGB color, each channel in [0, 255]."""

_OVERSAMPLING = 2
_MIN_SHAPES, _MAX_SHAPES = 2, 8
_RGB_PHASES = np.array((5.0, 3.0, 1.0))


def random_colors(rng: np.random.Generator, count: int, saturation: tuple[float, float] = (0.35, 0.9)) -> list[Color]:
    """Draw random colors of any hue with moderate to high brightness."""
    hue, vividness, value = rng.random((3, count, 1))
    chroma = saturation[0] + vividness * (saturation[1] - saturation[0])
    distance = (hue * 6 + _RGB_PHASES) % 6
    share = 1 - chroma * np.clip(np.minimum(distance, 4 - distance), 0, 1)
    rgb = 255 * (0.35 + 0.63 * value) * share
    return [(red, green, blue) for red, green, blue in rgb.astype(int).tolist()]


def backdrop(rng: np.random.Generator, height: int, width: int) -> Pixels:
    """Render a random background with scattered shapes.

    Returns:
        uint8 RGB `[height, width, 3]`, writable.
    """
    size = (width * _OVERSAMPLING, height * _OVERSAMPLING)
    ground = _GROUNDS[rng.integers(len(_GROUNDS))](rng, size)
    _scatter(rng, ground)
    return np.array(ground.reduce(_OVERSAMPLING))


def _quiet(rng: np.random.Generator, count: int) -> list[Color]:
    return random_colors(rng, count, (0.05, 0.5))


def _blend(rng: np.random.Generator, size: tuple[int, int], positions: int = 2) -> Image.Image:
    """Interpolate random mixtures of two muted colors on a coarse grid."""
    first, second = np.array(_quiet(rng, 2))
    mix = first + rng.random((positions, positions, 1)) * (second - first)
    smooth = Image.Resampling.BILINEAR if positions == 2 else Image.Resampling.BICUBIC
    return Image.fromarray(mix.astype(np.uint8)).resize(size, smooth)


def _clouds(rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    return _blend(rng, size, positions=int(rng.integers(3, 9)))


def _table(rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """Render a wall above a tabletop."""
    image = _blend(rng, size)
    edge = round(size[1] * rng.uniform(0.45, 0.8))
    image.paste(_blend(rng, (size[0], size[1] - edge)), (0, edge))
    return image


def _stripes(rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    image, draw = _canvas(_blend(rng, size))
    (color,), reach = _quiet(rng, 1), max(size)
    angle, pitch = rng.uniform(0, np.pi), min(size) * rng.uniform(0.06, 0.25)
    normal = np.array([np.cos(angle), np.sin(angle)])
    along = normal[::-1] * (-1, 1) * reach
    for offset in np.arange(-reach, reach, pitch):
        middle = np.array(size) / 2 + normal * offset
        draw.line([*(middle - along), *(middle + along)], fill=color, width=max(1, round(pitch / 2)))
    return image


def _dots(rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    image, draw = _canvas(_blend(rng, size))
    (color,), pitch = _quiet(rng, 1), min(size) * rng.uniform(0.1, 0.22)
    radius = pitch * rng.uniform(0.15, 0.35)
    for row, y in enumerate(np.arange(0, size[1] + pitch, pitch).tolist()):
        for x in np.arange(row % 2 * pitch / 2, size[0] + pitch, pitch).tolist():
            draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=color)
    return image


def _checks(rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    image, draw = _canvas(_blend(rng, size))
    (color,), pitch = _quiet(rng, 1), min(size) * rng.uniform(0.1, 0.25)
    for row, y in enumerate(np.arange(0, size[1], pitch).tolist()):
        for x in np.arange(row % 2 * pitch, size[0], 2 * pitch).tolist():
            draw.rectangle([x, y, x + pitch, y + pitch], fill=color)
    return image


def _canvas(image: Image.Image) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    return image, ImageDraw.Draw(image)


def _scatter(rng: np.random.Generator, image: Image.Image) -> None:
    draw = ImageDraw.Draw(image)
    side, count = min(image.size), int(rng.integers(_MIN_SHAPES, _MAX_SHAPES + 1))
    fills, edges = random_colors(rng, count), random_colors(rng, count)
    angles, scales = rng.uniform(0, 2 * np.pi, count), side * rng.uniform(0.05, 0.2, count)
    centers = rng.random((count, 2)) * image.size
    for index, kind in enumerate(rng.integers(len(_SHAPES), size=count)):
        cos, sin = np.cos(angles[index]) * scales[index], np.sin(angles[index]) * scales[index]
        shape = _SHAPES[kind](rng) @ np.array(((cos, sin), (-sin, cos))) + centers[index]
        points = shape.ravel().tolist()
        draw.polygon(points, fill=fills[index])
        if index % 2:
            draw.line([*points, *points[:2]], fill=edges[index], width=max(1, side // 60))


def _polygon(rng: np.random.Generator) -> Points:
    corners = np.arange(rng.integers(3, 7)) * 1.0
    angle = corners * 2 * np.pi / len(corners)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _bar(rng: np.random.Generator) -> Points:
    half = rng.uniform(0.1, 0.5)
    return np.array([(-1, -half), (1, -half), (1, half), (-1, half)])


def _disc(rng: np.random.Generator) -> Points:
    return ellipse(0, 0, 1, rng.uniform(0.4, 1))


def _half_disc(rng: np.random.Generator) -> Points:
    return ellipse(0, 0, 1, rng.uniform(0.5, 1), 0, np.pi)


def _ring(rng: np.random.Generator) -> Points:
    return ribbon(ellipse(0, 0, 0.85, 0.85, 0, rng.uniform(1.2, 2) * np.pi), rng.uniform(0.2, 0.4))


def _zigzag(rng: np.random.Generator) -> Points:
    x = np.linspace(-1.2, 1.2, int(rng.integers(4, 8)))
    return ribbon(np.stack([x, 0.3 * (-1.0) ** np.arange(len(x))], axis=1), 0.25)


def _cross(rng: np.random.Generator) -> Points:
    half = rng.uniform(0.15, 0.35)
    arm = [(half, -half), (1.0, -half), (1.0, half), (half, half)]
    return np.concatenate([np.array(arm) @ turn for turn in _QUARTER_TURNS])


_QUARTER_TURNS = [np.array([(c, s), (-s, c)]) for c, s in ((1, 0), (0, 1), (-1, 0), (0, -1))]
_GROUNDS: tuple[Callable[[np.random.Generator, tuple[int, int]], Image.Image], ...] = (
    _blend,
    _clouds,
    _table,
    _stripes,
    _dots,
    _checks,
)
_SHAPES: tuple[Callable[[np.random.Generator], Points], ...] = (
    _polygon,
    _bar,
    _disc,
    _half_disc,
    _ring,
    _zigzag,
    _cross,
)
