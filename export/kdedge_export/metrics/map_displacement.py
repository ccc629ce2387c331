"""Measurement of a model file's maps for display: displacement and typical contrast.

Convolutions with odd kernels and even strides, asymmetric padding and learned filters displace features relative to
their spatial position, by up to half a position. The displacement is measured on the file itself. Mirroring a sample
mirrors the displacement of the map's content. Half the distance between a map and the mirrored map of the mirrored
sample is therefore the displacement.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kdedge_export.metrics.file_predictions import gather, run_file
from kdedge_export.metrics.map_similarity import map_pearson
from kdedge_runtime import Model
from kdedge_runtime.drawing.heatmap import UNMEASURED, MapDisplay, contrast
from kdedge_runtime.modalities import Sample
from kdedge_runtime.util.arrays import Floats

__all__ = ["displacement", "measure_display"]

_SEARCHED = np.arange(-1.5, 1.501, 0.05)
"""Candidate distances between the two maps, in map positions."""
_LARGEST = 0.75
"""Largest accepted displacement (half the distance), in map positions; larger values are chance matches."""
_MIN_PEARSON = 0.6
_SPREAD = 0.25
"""Largest accepted difference between the displacements from two halves of the samples, in map positions."""


def measure_display(
    model: Model, samples: Sample | None, mirrored_axes: Sequence[tuple[int, int]], *, at_once: int = 1
) -> MapDisplay:
    """Measure the displacement and the typical contrast of a model file's maps.

    A displacement that cannot be measured reliably is 0.

    Args:
        model: a model file whose map explains a class.
        samples: preprocessed samples `[N, …]`, see `ExportModality.display_samples`; None for unknown.
        mirrored_axes: axis of `samples` and axis of the maps `[N, h, w]` for each direction that can be mirrored.
        at_once: batch size; methods that average over many copies of a sample need much memory per sample.
    """
    if not model.has_map or samples is None:
        return UNMEASURED
    top = np.full(len(samples), -1, dtype=np.int64)
    upright = gather(run_file(model, samples, top, at_once), len(samples))
    assert upright.maps is not None
    shifts = {1: 0.0, 2: 0.0}
    for sample_axis, axis in mirrored_axes:
        flipped = np.ascontiguousarray(np.flip(samples, sample_axis))
        mirrored = gather(run_file(model, flipped, upright.explained_class, at_once), len(samples)).maps
        assert mirrored is not None
        shifts[axis] = displacement(upright.maps, np.flip(mirrored, axis), axis)
    typical = float(np.median([contrast(saliency_map) for saliency_map in upright.maps]))
    return MapDisplay(shifts[2], shifts[1], typical if typical > 0 else None)


def displacement(maps: Floats, mirrored: Floats, axis: int) -> float:
    """Estimate the displacement of maps along an axis, in map positions.

    Args:
        maps: `[N, h, w]`.
        mirrored: `[N, h, w]`, the maps of the mirrored samples, mirrored back.
        axis: 1 for the vertical displacement, 2 for the horizontal one.

    Returns:
        Positive if the content lies below or to the right of the position's center; 0.0 if unreliable.
    """
    if maps.shape[axis] < 4:
        return 0.0
    # A component common to all maps, such as the trace of zero padding, does not move with the content.
    maps, mirrored = maps - maps.mean(axis=0), mirrored - mirrored.mean(axis=0)
    agreement = np.stack([_agreement(maps, mirrored, axis, distance) for distance in _SEARCHED.tolist()])
    found = [_best(agreement[:, start::step]) for start, step in ((0, 1), (0, 2), (1, 2))]
    (half, pearson_there), *halves = found
    is_reliable = pearson_there >= _MIN_PEARSON and abs(half) < _LARGEST and abs(halves[0][0] - halves[1][0]) <= _SPREAD
    return round(half, 3) if is_reliable else 0.0


def _agreement(maps: Floats, mirrored: Floats, axis: int, distance: float) -> NDArray[np.float64]:
    """Correlate maps with mirrored ones after moving each by half the distance towards the other, `[N]`.

    Moving both interpolates them equally. The outermost positions, which one of them lacks, are excluded.
    """
    inner = [slice(None)] * 3
    inner[axis] = slice(1, -1)
    there, here = _moved(maps, distance / 2, axis)[tuple(inner)], _moved(mirrored, -distance / 2, axis)[tuple(inner)]
    return map_pearson(there, here)


def _moved(maps: Floats, distance: float, axis: int) -> Floats:
    """Shift the content of maps along an axis by linear interpolation with edge replication."""
    size = maps.shape[axis]
    place = np.clip(np.arange(size) - distance, 0, size - 1)
    lower = np.floor(place).astype(np.int64)
    share = (place - lower).reshape([-1 if at == axis else 1 for at in range(maps.ndim)])
    upper = np.minimum(lower + 1, size - 1)
    moved: Floats = np.take(maps, lower, axis) * (1 - share) + np.take(maps, upper, axis) * share
    return moved


def _best(agreement: NDArray[np.float64]) -> tuple[float, float]:
    """Return half the distance with the largest mean correlation, and that correlation; 0 and -1 for constant maps."""
    if np.isnan(agreement).all(axis=1).any():
        return 0.0, -1.0
    means = np.nanmean(agreement, axis=1)
    at = int(means.argmax())
    return float(_SEARCHED[at] / 2), float(means[at])
