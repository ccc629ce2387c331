"""Synthetic camera with ground truth: one object at a time, moving through the image."""

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from types import TracebackType
from typing import Self, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kdedge_runtime.errors import UsageError
from kdedge_runtime.sources.source import Frame, GroundTruth
from kdedge_runtime.util.arrays import Pixels

__all__ = ["LABELS", "SPRITE_EXTENT", "SPRITE_FILE", "SPRITE_PX", "Mask", "Scene", "SyntheticSource"]

Mask: TypeAlias = NDArray[np.bool_]

LABELS = ("bottle", "fish", "key", "leaf", "mug", "mushroom", "star", "umbrella")
"""Class names, one for each row of the sprite file."""
SPRITE_FILE = Path(__file__).parent / "sprites.png"
"""RGBA image of the sprites, written by `kdedge_export.scenes.sprites`."""
SPRITE_PX = 64
"""Side of a sprite in pixels."""
SPRITE_EXTENT = 1.2
"""Half the side of a sprite in drawing units. A drawing extends at most as far from its origin."""
_FPS = 30.0
_SHOT_FRAMES = 90
_GROUND_POSITIONS = 5
"""Random colors along each side of a background."""


@dataclass(frozen=True, eq=False)
class Scene:
    """Image with ground truth."""

    image: Pixels
    """uint8 RGB `[H, W, 3]`."""
    mask: Mask
    """bool `[H, W]`: pixels covered at least half by the object."""
    label: str


class SyntheticSource:
    """Live source of drawn frames in real time, identical in every run.

    Object and background change every three seconds. Each frame has its label and bounding box; `scene_at` returns the
    exact mask.
    """

    live = True
    fps: float | None = _FPS
    dropped = 0
    reconnects = 0
    unreadable = 0
    paths: tuple[Path, ...] = ()

    def __init__(
        self, kind: str | None = None, *, height: int = 360, width: int = 640, frames: int | None = None, seed: int = 0
    ) -> None:
        """Create a synthetic camera.

        Args:
            kind: one of `LABELS`; None cycles through all.
            height: frame height in pixels.
            width: frame width in pixels.
            frames: number of frames; None for no end.
            seed: seed of the sprites, colors and backgrounds.

        Raises:
            UsageError: `kind` is unknown.
        """
        if kind is not None and kind not in LABELS:
            raise UsageError(f"There is no object {kind!r}. Expected synthetic: or one of: {', '.join(LABELS)}.")
        self.name = f"synthetic:{kind or ''}"
        self.expected = frames
        self._labels = LABELS if kind is None else (kind,)
        self._size = (height, width)
        self._seed = seed

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        pass

    def __iter__(self) -> Iterator[Frame]:
        started = time.monotonic()
        for index in itertools.count() if self.expected is None else range(self.expected):
            scene = self.scene_at(index)
            time.sleep(max(0.0, started + index / _FPS - time.monotonic()))
            truth = GroundTruth(scene.label, _box(scene.mask))
            yield Frame(index, scene.image, time.monotonic(), f"{self.name} {index}", truth)

    def scene_at(self, index: int) -> Scene:
        """Return frame `index` with its label and mask."""
        number, position = divmod(index, _SHOT_FRAMES)
        label = self._labels[number % len(self._labels)]
        return _shot(label, *self._size, self._seed, number).draw(position)


@dataclass(frozen=True, eq=False)
class _Shot:
    """Constants of one three-second shot."""

    label: str
    ground: Pixels
    sprite: Image.Image
    """RGBA, enlarged to its size in the image."""
    phases: tuple[float, ...]
    scale: float
    """Pixels per drawing unit."""
    flipped: bool

    def draw(self, position: int) -> Scene:
        """Draw a frame of the shot. Position, angle and scale of the object follow sine curves."""
        across, down, sway, breath = (
            np.sin(2 * np.pi * position / (period_s * _FPS) + phase)
            for period_s, phase in zip((6.0, 4.5, 5.0, 3.5), self.phases, strict=True)
        )
        reach = SPRITE_EXTENT * self.scale
        x, y = (
            side / 2 + wave * max(0.0, side / 2 - reach)
            for side, wave in zip(self.ground.shape[1::-1], (across, down), strict=True)
        )
        return self._place(x, y, self.scale * (0.95 + 0.05 * breath), 0.45 * sway)

    def _place(self, x: float, y: float, scale: float, angle: float) -> Scene:
        """Place the sprite.

        Args:
            x: position of its center in pixels from the left.
            y: position of its center in pixels from the top.
            scale: pixels per drawing unit.
            angle: clockwise rotation in radians.
        """
        height, width = self.ground.shape[:2]
        reach = int(np.ceil(SPRITE_EXTENT * scale)) + 1
        left, top, side = int(x) - reach, int(y) - reach, 2 * reach + 1
        # From a pixel of the window around the object to one of the sprite, as Pillow expects it.
        step = self.sprite.width / (2 * SPRITE_EXTENT * scale)
        turn = step * np.array([(np.cos(angle), np.sin(angle)), (-np.sin(angle), np.cos(angle))])
        if self.flipped:
            turn[0] *= -1
        start = self.sprite.width / 2 - turn @ (x - left, y - top)
        matrix = np.column_stack([turn, start]).ravel().tolist()
        cutout = self.sprite.transform((side, side), Image.Transform.AFFINE, matrix)
        inside = slice(max(top, 0), min(top + side, height)), slice(max(left, 0), min(left + side, width))
        corner = (left - inside[1].start, top - inside[0].start)
        image, mask = self.ground.copy(), np.zeros((height, width), dtype=bool)
        behind = Image.fromarray(image[inside])
        opacity = Image.new("L", behind.size)
        behind.paste(cutout, corner, cutout)
        opacity.paste(cutout.getchannel("A"), corner)
        image[inside], mask[inside] = np.asarray(behind), np.asarray(opacity) >= 128
        return Scene(image, mask, self.label)


@lru_cache(maxsize=4)
def _shot(label: str, height: int, width: int, seed: int, number: int) -> _Shot:
    rng = np.random.default_rng((seed, number))
    variants = _sprites()[label]
    sprite = variants[rng.integers(len(variants))]
    colors = sprite[..., rng.permutation(3)]  # other hues; white and dark parts stay
    object_color = colors[sprite[..., 3] >= 128].mean(axis=0)
    grounds = [_random_ground(rng) for _ in range(2)]
    ground = max(grounds, key=lambda each: float(np.abs(each.mean(axis=(0, 1)) - object_color).sum()))
    scale = float(min(height, width) * rng.uniform(0.34, 0.42))
    side = round(2 * SPRITE_EXTENT * scale)
    return _Shot(
        label=label,
        ground=np.asarray(Image.fromarray(ground).resize((width, height), Image.Resampling.BICUBIC)),
        sprite=Image.fromarray(np.dstack([colors, sprite[..., 3]])).resize((side, side), Image.Resampling.BICUBIC),
        phases=tuple(rng.uniform(0, 2 * np.pi, 4).tolist()),
        scale=scale,
        flipped=bool(rng.random() < 0.5),
    )


@cache
def _sprites() -> dict[str, NDArray[np.uint8]]:
    """Read the sprites by class, uint8 RGBA `[variants, SPRITE_PX, SPRITE_PX, 4]`."""
    with Image.open(SPRITE_FILE, formats=["PNG"]) as file:
        sheet: NDArray[np.uint8] = np.asarray(file.convert("RGBA"))
    rows = sheet.reshape(len(LABELS), SPRITE_PX, -1, SPRITE_PX, 4).swapaxes(1, 2)
    return {label: rows[index] for index, label in enumerate(LABELS)}


def _random_ground(rng: np.random.Generator) -> Pixels:
    """Return random mixtures of two muted colors, uint8 RGB `[_GROUND_POSITIONS, _GROUND_POSITIONS, 3]`."""
    first, second = rng.uniform(70, 230, (2, 1)) + rng.uniform(-35, 35, (2, 3))
    mix = first + rng.random((_GROUND_POSITIONS, _GROUND_POSITIONS, 1)) * (second - first)
    ground: Pixels = np.clip(mix, 0, 255).astype(np.uint8)
    return ground


def _box(mask: Mask) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
