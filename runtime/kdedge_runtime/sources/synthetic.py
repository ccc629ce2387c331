"""Synthetic camera with ground truth: one rendered object at a time, moving through the image."""

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from types import TracebackType
from typing import Self

import numpy as np

from kdedge_runtime.errors import UsageError
from kdedge_runtime.sources.backdrops import backdrop
from kdedge_runtime.sources.icons import LABELS, Part, draw_icon
from kdedge_runtime.sources.painting import Mask, Palette, Pose, paint
from kdedge_runtime.sources.scenes import Scene, random_palette
from kdedge_runtime.sources.source import Frame, GroundTruth
from kdedge_runtime.util.arrays import Pixels

__all__ = ["SyntheticSource"]

_FPS = 30.0
_SHOT_FRAMES = 90
_UNITS = 1.15
"""Upper bound of a drawing's extent from its origin, in drawing units."""


class SyntheticSource:
    """Live source of rendered frames in real time, identical in every run.

    Object and background change every three seconds. Each frame has its label and bounding box; `scene_at` returns the
    exact mask.
    """

    live = True
    fps: float | None = _FPS
    dropped = 0
    reconnects = 0
    unreadable = 0

    def __init__(
        self, kind: str | None = None, *, height: int = 360, width: int = 640, frames: int | None = None, seed: int = 0
    ) -> None:
        """Create a synthetic camera.

        Args:
            kind: one of `LABELS`; None cycles through all.
            height: frame height in pixels.
            width: frame width in pixels.
            frames: number of frames; None for no end.
            seed: seed of the drawings, colors and backgrounds.

        Raises:
            UsageError: `kind` is unknown.
        """
        if kind is not None and kind not in LABELS:
            raise UsageError(f"There is no drawing of {kind!r}. Expected synthetic: or one of: {', '.join(LABELS)}.")
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
        shot = _shot(label, *self._size, self._seed, number)
        image = shot.ground.copy()
        return Scene(image, paint(image, shot.parts, shot.pose_at(position), shot.palette), label)


@dataclass(frozen=True)
class _Shot:
    """Constants of one three-second shot."""

    ground: Pixels
    parts: tuple[Part, ...]
    palette: Palette
    phases: tuple[float, ...]
    scale: float
    flipped: bool

    def pose_at(self, position: int) -> Pose:
        """Return the pose in a frame of the shot. Position, angle and scale follow sine curves."""
        height, width = self.ground.shape[:2]
        across, down, sway, breath = (
            np.sin(2 * np.pi * position / (period_s * _FPS) + phase)
            for period_s, phase in zip((6.0, 4.5, 5.0, 3.5), self.phases, strict=True)
        )
        reach = _UNITS * self.scale
        return Pose(
            x=float(width / 2 + across * max(0.0, width / 2 - reach)),
            y=float(height / 2 + down * max(0.0, height / 2 - reach)),
            scale=float(self.scale * (0.95 + 0.05 * breath)),
            angle=float(0.45 * sway),
            flipped=self.flipped,
        )


@lru_cache(maxsize=4)
def _shot(label: str, height: int, width: int, seed: int, number: int) -> _Shot:
    rng = np.random.default_rng((seed, number))
    ground = backdrop(rng, height, width)
    return _Shot(
        ground=ground,
        parts=draw_icon(label, rng),
        palette=random_palette(rng, ground),
        phases=tuple(rng.uniform(0, 2 * np.pi, 4).tolist()),
        scale=float(min(height, width) * rng.uniform(0.34, 0.42)),
        flipped=bool(rng.random() < 0.5),
    )


def _box(mask: Mask) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
