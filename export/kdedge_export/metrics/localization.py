"""Localization of objects by saliency maps, for samples with known object regions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kdedge_export.metrics import map_similarity
from kdedge_export.metrics.baseline_maps import center_maps, random_maps, upsampled
from kdedge_export.metrics.confidence import SHARE, Interval, mean_interval
from kdedge_runtime.util.arrays import Floats

__all__ = ["Localization", "localize", "localize_all"]

_CHUNK = 64

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Localization:
    """Localization scores of one kind of map."""

    pointing: float
    """Fraction of samples in [0, 1] whose map maximum lies on the object (see `map_similarity.pointing_game`)."""
    energy_inside: float
    """Mean fraction of the map's positive part on the object, in [0, 1]; 0 for a map without a positive part."""
    intervals: Mapping[str, Interval | None]
    """95% intervals by field name."""


def localize(
    maps: Floats, masks: Sequence[Flags], shift: tuple[float, float] = (0.0, 0.0)
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute the pointing game and the energy inside per sample, `[N]` each (see `map_similarity`).

    Args:
        maps: raw signed maps `[N, h, w]` at any resolution.
        masks: bool `[H, W]` of each sample, True on the object, at the size of the model's input.
        shift: displacement of the maps' content, in map positions (`kdedge_runtime.drawing.heatmap.MapDisplay.shift`).
    """
    hits, energies = [], []
    for start in range(0, len(maps), _CHUNK):
        some = np.stack(masks[start : start + _CHUNK])
        large = upsampled(maps[start : start + _CHUNK], some.shape[1], some.shape[2], shift)
        hits.append(map_similarity.pointing_game(large, some))
        energies.append(map_similarity.energy_inside(large, some))
    return np.concatenate(hits), np.concatenate(energies)


def localize_all(
    maps: Mapping[str, Floats],
    masks: Sequence[Flags],
    shifts: Mapping[str, tuple[float, float]],
    references: Mapping[str, Floats],
) -> dict[str, Localization]:
    """Compute localization scores of models' maps, the center prior, random maps and references.

    Random maps have the resolution of the last maps.

    Args:
        maps: raw signed maps `[N, h, w]` by model name.
        masks: bool `[H, W]` of each sample, True on the object.
        shifts: displacement of the map content, in map positions, by model name; zero if missing.
        references: further baseline maps `[N, h, w]` of the samples, see `ExportModality.baseline_maps`.
    """
    n, height, width = list(maps.values())[-1].shape
    baselines = {
        "center": center_maps(n, *masks[0].shape),
        "random": random_maps(n, height, width),
        **references,
    }
    return {
        name: _summed_up(*localize(some, masks, shifts.get(name, (0.0, 0.0))))
        for name, some in (dict(maps) | baselines).items()
    }


def _summed_up(hits: NDArray[np.float64], energies: NDArray[np.float64]) -> Localization:
    # A map without a maximum scores 0, as does one without a positive part.
    hits, energies = np.nan_to_num(hits), np.nan_to_num(energies)
    return Localization(
        float(hits.mean()),
        float(energies.mean()),
        {"pointing": mean_interval(hits, SHARE), "energy_inside": mean_interval(energies, SHARE)},
    )
