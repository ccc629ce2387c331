"""Saliency maps as heat: what a person is shown, and four numbers that say where the model looked."""

import math
from dataclasses import dataclass

import numpy as np

from kdedge_runtime.util.arrays import Floats

__all__ = [
    "OPACITY",
    "UNMEASURED",
    "HeatStats",
    "MapDisplay",
    "SteadyScale",
    "contrast",
    "display_heat",
    "heat_stats",
    "peak",
    "rectified",
]

Box = tuple[float, float, float, float]
OPACITY = 0.6
"""How much of the colour covers the picture where the heat is full."""


def peak(saliency_map: Floats) -> float:
    """The strongest evidence for the class in a map `[h, w]`; 0.0 where no cell speaks for it."""
    return max(float(saliency_map.max()), 0.0)


def rectified(saliency_map: Floats, scale: float) -> Floats:
    """Heat for display: the positive part of a signed map, divided by `scale`.

    Args:
        saliency_map: raw and signed, `[h, w]`.
        scale: the value that is shown as full heat; what exceeds it is shown as full heat too.

    Returns:
        float32 `[h, w]` in [0, 1]; all zeros where `scale` is not positive.
    """
    if scale <= 0:
        return np.zeros_like(saliency_map, dtype=np.float32)
    heat: Floats = np.clip(saliency_map / scale, 0.0, 1.0).astype(np.float32)
    return heat


@dataclass(frozen=True)
class MapDisplay:
    """Place and strength of a model's maps on the images that they explain, as measured at export."""

    shift_x: float = 0.0
    """Displacement of the content from the middles of the cells, in cells, positive to the right.

    Kernels, strides and paddings shift features: cell (i, j) of a map shows the image at `(j + 1/2 + shift_x) / width`.
    """
    shift_y: float = 0.0
    """Displacement of the content in cells, positive downward."""
    typical_contrast: float | None = None
    """`contrast` of a typical map; None where it is unknown."""

    @property
    def shift(self) -> tuple[float, float]:
        """Displacement to the right and down, in cells."""
        return self.shift_x, self.shift_y


UNMEASURED = MapDisplay()
"""Maps without a measured display: as they lie, at full strength."""


def contrast(saliency_map: Floats) -> float:
    """Return the height of a map's maximum above the mean of its positive part; 0.0 for a constant map.

    Args:
        saliency_map: raw and signed, `[h, w]`.
    """
    return peak(saliency_map) - float(np.maximum(saliency_map, 0.0).mean(dtype=np.float64))


def display_heat(saliency_map: Floats, scale: float, typical_contrast: float | None) -> Floats:
    """Scale a map for display, weaker than full heat where the map is flatter than a typical one.

    Heat that is normalized by its own maximum alone glows on an empty wall as it does on an object.

    Args:
        saliency_map: raw and signed, `[h, w]`.
        scale: the value shown as full heat (see `rectified`).
        typical_contrast: see `MapDisplay`; None leaves the strength as it is.

    Returns:
        float32 `[h, w]` in [0, 1].
    """
    heat = rectified(saliency_map, scale)
    if typical_contrast is None:
        return heat
    return heat * np.float32(min(1.0, contrast(saliency_map) / typical_contrast))


@dataclass(frozen=True)
class HeatStats:
    """Where the evidence for the explained class lies, from the positive cells of a map.

    A map without a positive cell has no evidence and so no place: `cx`, `cy` and `entropy` are None, `area_frac`
    is 0.
    """

    cx: float | None
    """Centre of mass, from the left edge of the frame (0) to the right (1)."""
    cy: float | None
    """Centre of mass, from the top edge of the frame (0) to the bottom (1)."""
    area_frac: float
    """Share of the map's cells that are above half of its maximum, in [0, 1]."""
    entropy: float | None
    """Spread of the evidence: 0 when one cell holds all of it, 1 when all cells hold the same."""


def heat_stats(
    saliency_map: Floats, box: Box, height: int, width: int, shift: tuple[float, float] = (0.0, 0.0)
) -> HeatStats:
    """Summarise one map in the coordinates of the frame that it explains.

    Args:
        saliency_map: raw and signed, `[h, w]`.
        box: the part of the frame that the model saw, from `kdedge_runtime.preprocess.visible_box`.
        height: of the frame in pixels.
        width: of the frame in pixels.
        shift: displacement of the map's content in cells, see `MapDisplay`.
    """
    evidence = np.maximum(saliency_map.astype(np.float64), 0.0)
    total = float(evidence.sum())
    if total <= 0:
        return HeatStats(None, None, 0.0, None)
    rows, columns = evidence.shape
    share = evidence / total
    # A cell's place is its middle plus the shift: cell j of w lies at (j + 1/2 + shift) / w.
    across = float(share.sum(axis=0) @ np.clip((np.arange(columns) + 0.5 + shift[0]) / columns, 0.0, 1.0))
    down = float(share.sum(axis=1) @ np.clip((np.arange(rows) + 0.5 + shift[1]) / rows, 0.0, 1.0))
    left, top, right, bottom = box
    held = share[share > 0]
    cells = evidence.size
    entropy = float(-(held * np.log(held)).sum()) / math.log(cells) if cells > 1 else 0.0
    return HeatStats(
        cx=min(max((left + across * (right - left)) / width, 0.0), 1.0),  # a letterbox's borders lie beyond the frame
        cy=min(max((top + down * (bottom - top)) / height, 0.0), 1.0),
        area_frac=float((evidence > evidence.max() / 2).mean()),
        entropy=min(max(entropy, 0.0), 1.0),
    )


class SteadyScale:
    """A display scale for video: it rises at once and falls slowly, so that the picture does not flicker.

    Normalising every frame by its own maximum would show weak evidence as brightly as strong evidence and pulse
    with the noise. The scale is the exponential moving maximum of the peaks.
    """

    def __init__(self, half_life_s: float = 1.0) -> None:
        self._half_life_s = half_life_s
        self._scale = 0.0

    def update(self, peak: float, elapsed_s: float) -> float:
        """Take in the peak of a map and return the scale to show that map with.

        Args:
            peak: of the map, see `peak`.
            elapsed_s: from the map before to this one, in the time of what is seen.
        """
        self._scale = max(peak, self._scale * 0.5 ** (max(elapsed_s, 0.0) / self._half_life_s))
        return self._scale
