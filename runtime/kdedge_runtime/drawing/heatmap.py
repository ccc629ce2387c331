"""Heat maps for display, and four statistics of a saliency map."""

import math
from dataclasses import dataclass

import numpy as np

from kdedge_runtime.util.arrays import Floats

__all__ = [
    "OPACITY",
    "UNMEASURED",
    "HeatStats",
    "MapDisplay",
    "SmoothedScale",
    "contrast",
    "display_heat",
    "heat_stats",
    "peak",
    "normalize_heatmap",
]

Box = tuple[float, float, float, float]
OPACITY = 0.6
"""Default opacity of the heat map at full heat."""


def peak(saliency_map: Floats) -> float:
    """Return the maximum of a map `[h, w]`, or 0.0 if it has no positive value."""
    return max(float(saliency_map.max()), 0.0)


def normalize_heatmap(saliency_map: Floats, scale: float) -> Floats:
    """Return the positive part of a signed map, divided by `scale` and clipped to 1.

    Args:
        saliency_map: raw signed map, `[h, w]`.
        scale: map value shown as full heat.

    Returns:
        float32 `[h, w]` in [0, 1]; all zeros if `scale` is not positive.
    """
    if scale <= 0:
        return np.zeros_like(saliency_map, dtype=np.float32)
    heat: Floats = np.clip(saliency_map / scale, 0.0, 1.0).astype(np.float32)
    return heat


@dataclass(frozen=True)
class MapDisplay:
    """Position and contrast of a model's maps on their images, measured at export."""

    shift_x: float = 0.0
    """Horizontal offset of the map content in map pixels, positive to the right. Default 0.

    Kernels, strides and paddings shift features: position (i, j) of a map covers the image at `(j + 1/2 + shift_x) /
    width`.
    """
    shift_y: float = 0.0
    """Vertical offset of the map content in map pixels, positive downward. Default 0."""
    typical_contrast: float | None = None
    """Median `contrast` of the model's maps, or None if unknown."""

    @property
    def shift(self) -> tuple[float, float]:
        """Offset to the right and down, in map pixels."""
        return self.shift_x, self.shift_y


UNMEASURED = MapDisplay()
"""Display of maps without measurements: no offset, full opacity."""


def contrast(saliency_map: Floats) -> float:
    """Return the difference between a map's maximum and the mean of its positive part; 0.0 for a constant map.

    Args:
        saliency_map: raw signed map, `[h, w]`.
    """
    return peak(saliency_map) - float(np.maximum(saliency_map, 0.0).mean(dtype=np.float64))


def display_heat(saliency_map: Floats, scale: float, typical_contrast: float | None) -> Floats:
    """Scale a map for display, and attenuate maps that are flatter than typical.

    Normalization by the maximum alone would show an empty wall as brightly as an object.

    Args:
        saliency_map: raw signed map, `[h, w]`.
        scale: map value shown as full heat (see `normalize_heatmap`).
        typical_contrast: see `MapDisplay`; None disables the attenuation.

    Returns:
        float32 `[h, w]` in [0, 1].
    """
    heat = normalize_heatmap(saliency_map, scale)
    if typical_contrast is None:
        return heat
    return heat * np.float32(min(1.0, contrast(saliency_map) / typical_contrast))


@dataclass(frozen=True)
class HeatStats:
    """Location and spread of the positive evidence in a map.

    A map without positive values has no location: `cx`, `cy` and `entropy` are None and `area` is 0.
    """

    cx: float | None
    """Horizontal center of mass, from the left edge of the frame (0) to the right (1)."""
    cy: float | None
    """Vertical center of mass, from the top edge of the frame (0) to the bottom (1)."""
    area: float
    """Share of map values above half of the maximum, in [0, 1]."""
    entropy: float | None
    """Normalized entropy: 0 if all evidence is at one position, 1 if it is uniform."""


def heat_stats(
    saliency_map: Floats, box: Box, height: int, width: int, shift: tuple[float, float] = (0.0, 0.0)
) -> HeatStats:
    """Compute the statistics of one map in frame coordinates.

    Args:
        saliency_map: raw signed map, `[h, w]`.
        box: visible part of the frame, from `ImageInput.visible_box`.
        height: frame height in pixels.
        width: frame width in pixels.
        shift: offset of the map content in map pixels, see `MapDisplay`.
    """
    evidence = np.maximum(saliency_map.astype(np.float64), 0.0)
    total = float(evidence.sum())
    if total <= 0:
        return HeatStats(None, None, 0.0, None)
    rows, columns = evidence.shape
    share = evidence / total
    # Column j of w is centered at (j + 1/2 + shift) / w.
    across = float(share.sum(axis=0) @ np.clip((np.arange(columns) + 0.5 + shift[0]) / columns, 0.0, 1.0))
    down = float(share.sum(axis=1) @ np.clip((np.arange(rows) + 0.5 + shift[1]) / rows, 0.0, 1.0))
    left, top, right, bottom = box
    held = share[share > 0]
    positions = evidence.size
    entropy = float(-(held * np.log(held)).sum()) / math.log(positions) if positions > 1 else 0.0
    return HeatStats(
        cx=min(max((left + across * (right - left)) / width, 0.0), 1.0),  # letterbox borders extend beyond the frame
        cy=min(max((top + down * (bottom - top)) / height, 0.0), 1.0),
        area=float((evidence > evidence.max() / 2).mean()),
        entropy=min(max(entropy, 0.0), 1.0),
    )


class SmoothedScale:
    """Display scale for video: rises immediately and decays slowly, to avoid flicker.

    Normalizing every frame by its own maximum would show weak evidence as brightly as strong evidence and pulse with
    noise. The scale is an exponentially decaying maximum of the peaks.
    """

    def __init__(self, half_life_s: float = 1.0) -> None:
        self._half_life_s = half_life_s
        self._scale = 0.0

    def update(self, peak: float, elapsed_s: float) -> float:
        """Update the scale with the peak of a map and return the scale for that map.

        Args:
            peak: maximum of the map, see `peak`.
            elapsed_s: seconds of source time since the previous map.
        """
        self._scale = max(peak, self._scale * 0.5 ** (max(elapsed_s, 0.0) / self._half_life_s))
        return self._scale
