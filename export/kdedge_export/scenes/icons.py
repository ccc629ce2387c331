"""Vector drawings of everyday objects, the classes of the rendered scenes.

Drawings vary in proportions but keep the features of their class. Colors are chosen elsewhere, independently of the
class.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["LABELS", "Part", "Points", "draw_icon", "ellipse", "ribbon"]

Points: TypeAlias = NDArray[np.float64]
"""Points `[V, 2]`, x to the right and y downward. Drawings span about [-1, 1] on their longer axis."""

_LEFT = np.array((-1.0, 1.0))

Paint: TypeAlias = Literal["body", "accent", "shade", "light", "dark", "hole"]


@dataclass(frozen=True)
class Part:
    """One filled polygon of a drawing; later parts are drawn over earlier ones."""

    points: Points
    paint: Paint

    @property
    def is_solid(self) -> bool:
        """True if the part belongs to the silhouette. Other parts are drawn on top of solid parts."""
        return self.paint in ("body", "accent")


def ellipse(x: float, y: float, rx: float, ry: float, start: float = 0.0, stop: float = 2 * np.pi) -> Points:
    """Return an ellipse around (x, y), or its arc between two angles in radians (0 is right, π/2 is down)."""
    count = max(6, round(30 * abs(stop - start) / (2 * np.pi)))
    angle = start + _steps(count) * (stop - start)
    return np.array((x + rx * np.cos(angle), y + ry * np.sin(angle))).T


def ribbon(path: Points, width: float) -> Points:
    """Return the outline of a band of constant width along a path."""
    along = np.empty_like(path)
    along[0], along[-1] = path[1] - path[0], path[-1] - path[-2]
    along[1:-1] = path[2:] - path[:-2]
    normal = along[:, ::-1] * (_LEFT * (width / 2)) / np.hypot(along[:, 0], along[:, 1])[:, None]
    return np.concatenate((path + normal, (path - normal)[::-1]))


@lru_cache
def _steps(count: int) -> NDArray[np.float64]:
    return np.linspace(0, 1, count)


def draw_icon(label: str, rng: np.random.Generator) -> tuple[Part, ...]:
    """Draw an object with random proportions.

    Raises:
        KeyError: `label` is not in `LABELS`.
    """
    return tuple(_DRAWINGS[label](rng))


def _box(left: float, top: float, right: float, bottom: float) -> Points:
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)], dtype=np.float64)


def _mirrored(half: Sequence[tuple[float, float]]) -> Points:
    """Return a symmetric outline from its right half, listed from top to bottom."""
    right = np.array(half, dtype=np.float64)
    return np.concatenate([right, right[::-1] * (-1, 1)])


def _rounded(corners: Points, rounds: int = 2) -> Points:
    """Smooth a closed outline by corner cutting (Chaikin, 1974)."""
    for _ in range(rounds):
        following = np.roll(corners, -1, axis=0)
        cut = np.stack([0.8 * corners + 0.2 * following, 0.2 * corners + 0.8 * following], axis=1)
        corners = cut.reshape(-1, 2)
    return corners


def _bottle(rng: np.random.Generator) -> list[Part]:
    body, neck = rng.uniform(0.34, 0.48), rng.uniform(0.12, 0.18)
    shoulder, slope = rng.uniform(-0.35, -0.05), rng.uniform(0.15, 0.4)
    glass = _mirrored(
        [(neck, -0.9), (neck, shoulder - slope), (body, shoulder), (body, 0.35), (body, 0.98), (body * 0.8, 1.0)]
    )
    cap = _box(-neck - 0.04, -1.0, neck + 0.04, -0.78)
    top = rng.uniform(shoulder + 0.12, 0.35)
    paper = _box(-body + 0.03, top, body - 0.03, top + rng.uniform(0.3, 0.5))
    gleam = _box(-body * 0.72, shoulder + 0.05, -body * 0.5, 0.88)
    return [Part(_rounded(glass), "body"), Part(cap, "accent"), Part(paper, "accent"), Part(_rounded(gleam), "light")]


def _mug(rng: np.random.Generator) -> list[Part]:
    width, foot, height = rng.uniform(0.5, 0.62), rng.uniform(0.42, 0.6), rng.uniform(0.6, 0.8)
    walls = np.concatenate([[(-width, -height), (width, -height)], ellipse(0, height, foot, 0.12, 0, np.pi)])
    reach, thick = rng.uniform(0.32, 0.46), rng.uniform(0.14, 0.2)
    grip = ellipse(
        width * 0.95, rng.uniform(-0.12, 0.02), reach, height * rng.uniform(0.5, 0.65), -np.pi / 2, np.pi / 2
    )
    rim = ellipse(0, -height, width, 0.15)
    parts = [
        Part(ribbon(grip, thick), "accent"),
        Part(walls, "body"),
        Part(rim, "body"),
        Part(rim * (0.86, 0.96), "dark"),
    ]
    if rng.random() < 0.5:
        middle = rng.uniform(-0.1, 0.25)
        parts.append(Part(_box(-foot * 0.96, middle, foot * 0.96, middle + 0.2), "accent"))
    return parts


def _key(rng: np.random.Generator) -> list[Part]:
    bow, thick = rng.uniform(0.4, 0.5), rng.uniform(0.2, 0.26)
    center = -1 + bow
    parts = [
        Part(_box(center, -thick / 2, 1.0, thick / 2), "body"),
        Part(ellipse(center, 0, bow, bow * rng.uniform(0.95, 1.25)), "body"),
    ]
    right = rng.uniform(0.92, 1.0)
    for _ in range(rng.integers(2, 4)):
        width = rng.uniform(0.13, 0.19)
        parts.append(Part(_box(right - width, 0, right, rng.uniform(0.32, 0.48)), "body"))
        right -= width + rng.uniform(0.08, 0.12)
    eye = ellipse(center - 0.04, 0, bow * rng.uniform(0.4, 0.55), bow * rng.uniform(0.4, 0.6))
    parts.append(Part(eye, "hole"))
    parts.append(Part(_box(center + bow * 1.02, -thick * 0.12, 0.88, thick * 0.12), "shade"))
    return parts


def _leaf(rng: np.random.Generator) -> list[Part]:
    width, widest, bend = rng.uniform(0.36, 0.5), rng.uniform(0.8, 1.25), rng.uniform(-0.2, 0.2)
    along = np.linspace(0, 1, 18)
    spine = np.stack([-0.72 + 1.7 * along, bend * np.sin(np.pi * along)], axis=1)
    half = width * np.sin(np.pi * along**widest) ** 0.85
    blade = np.concatenate([spine - half[:, None] * (0, 1), (spine + half[:, None] * (0, 1))[::-1]])
    stalk = np.stack([np.linspace(-1.0, -0.6, 6), rng.uniform(-0.12, 0.12) * np.linspace(1, 0, 6) ** 2], axis=1)
    parts = [Part(ribbon(stalk, 0.1), "accent"), Part(blade, "body"), Part(ribbon(spine[:-1], 0.05), "shade")]
    for index in range(int(rng.integers(3, 5)), 14, int(rng.integers(3, 5))):
        for side in (-1, 1):
            tip = spine[index] + (0.14, side * half[index] * 0.6)
            parts.append(Part(ribbon(np.linspace(spine[index], tip, 3), 0.04), "shade"))
    return parts


def _fish(rng: np.random.Generator) -> list[Part]:
    belly, tail, nose = rng.uniform(0.34, 0.5), rng.uniform(0.3, 0.46), rng.uniform(0.6, 0.8)
    trunk = _rounded(
        np.array(
            [(-nose - 0.2, 0), (-0.5, -belly), (0.1, -belly), (0.62, -0.1), (0.62, 0.1), (0.1, belly), (-0.5, belly)]
        )
    )
    fork = rng.uniform(0.6, 0.85)
    fluke = np.array([(0.5, 0), (1.0, -tail), (fork, 0), (1.0, tail)])
    fin = np.array([(-0.35, -belly * 0.7), (rng.uniform(-0.1, 0.1), -belly - 0.24), (0.3, -belly * 0.6)])
    eye = rng.uniform(0.08, 0.11)
    gill = ellipse(-0.5, 0, 0.16, belly * 0.55, -1.1, 1.1)
    flipper = np.array([(-0.18, 0.05), (0.16, -0.06), (0.16, 0.22)])
    return [
        Part(_rounded(fluke, 1), "accent"),
        Part(_rounded(fin, 1), "accent"),
        Part(trunk, "body"),
        Part(ribbon(gill, 0.05), "shade"),
        Part(_rounded(flipper, 1), "shade"),
        Part(ellipse(-0.62, -belly * 0.25, eye, eye), "light"),
        Part(ellipse(-0.64, -belly * 0.25, eye * 0.5, eye * 0.5), "dark"),
    ]


def _star(rng: np.random.Generator) -> list[Part]:
    depth = rng.uniform(0.44, 0.56)
    angle = np.arange(10) * np.pi / 5 - np.pi / 2
    radius = np.where(np.arange(10) % 2, depth, 1.0)
    tips = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    parts = [Part(_rounded(tips, 1), "body")]
    if rng.random() < 0.5:
        center = np.zeros(2)
        parts += [Part(np.stack([center, tips[i] * 0.86, tips[i + 1]]), "shade") for i in range(0, 10, 2)]
    else:
        parts.append(Part(_rounded(tips * 0.55, 1), "accent"))
    return parts


def _mushroom(rng: np.random.Generator) -> list[Part]:
    wide, high, stem = rng.uniform(0.8, 0.95), rng.uniform(0.7, 0.95), rng.uniform(0.2, 0.3)
    brim = rng.uniform(-0.05, 0.12)
    cap = np.concatenate([ellipse(0, brim, wide, high, np.pi, 2 * np.pi), ellipse(0, brim, wide, 0.14, 0, np.pi)])
    foot = _mirrored([(stem * 0.8, brim), (stem * 0.85, 0.4), (stem * 1.3, 0.85), (stem, 0.95)])
    parts = [Part(_rounded(foot), "accent"), Part(cap, "body")]
    spots = ((-0.45, -0.28, 0.13), (0.05, -0.55, 0.16), (0.48, -0.22, 0.14), (-0.05, -0.12, 0.1))
    for x, y, size in spots:
        radius = size * rng.uniform(0.8, 1.15)
        spot = ellipse(x * wide, brim + y * high + rng.uniform(-0.04, 0.04), radius, radius * 0.85)
        parts.append(Part(spot, "light"))
    return parts


def _umbrella(rng: np.random.Generator) -> list[Part]:
    wide, high, ribs = rng.uniform(0.85, 1.0), rng.uniform(0.68, 0.9), int(rng.integers(3, 6))
    edge = rng.uniform(-0.05, 0.08)
    dome = ellipse(0, edge, wide, high, np.pi, 2 * np.pi)
    ends = np.linspace(wide, -wide, ribs + 1)
    scallops = [
        ellipse((right + left) / 2, edge, (right - left) / 2, -0.12, 0, np.pi) for right, left in pairwise(ends)
    ]
    hook = rng.uniform(0.13, 0.18)
    stick = np.concatenate([[(0.0, edge - high - 0.1), (0.0, 0.7)], ellipse(hook, 0.78, hook, hook, np.pi, 0)])
    panels = [_panel(right, left, edge, high) for right, left in zip(ends[:-1:2], ends[1::2], strict=False)]
    return [
        Part(ribbon(stick, 0.12), "accent"),
        Part(np.concatenate([dome, *scallops]), "body"),
        *(Part(panel, "shade") for panel in panels),
    ]


def _panel(right: float, left: float, edge: float, high: float) -> Points:
    """Return the panel of an umbrella between two ribs."""
    down, up = (ellipse(0, edge, x, high, -np.pi / 2, 0) for x in (right, left))
    return np.concatenate([down, up[::-1]])


_DRAWINGS: dict[str, Callable[[np.random.Generator], list[Part]]] = {
    "bottle": _bottle,
    "fish": _fish,
    "key": _key,
    "leaf": _leaf,
    "mug": _mug,
    "mushroom": _mushroom,
    "star": _star,
    "umbrella": _umbrella,
}

LABELS = tuple(_DRAWINGS)
"""Class names, sorted."""
