"""Measurement of a model file's maps for display: their displacement and their typical contrast.

Convolutions with odd kernels and even strides, asymmetric padding and learned filters displace features against the
cells that they are stored in, by up to half a cell. The displacement is measured on the file itself: mirrored images
displace a map's content to the other side, so that half the distance between a map and the mirrored map of the mirrored
image is the displacement. Drawn scenes serve as images, since no others are at hand at every export. On photos
the displacements of EfficientNet-Lite0 and SqueezeNet were the same to 0.1 cells.
"""

import numpy as np
from numpy.typing import NDArray

from kdedge_export.metrics.agreement import map_pearson
from kdedge_export.metrics.file_predictions import gather, run_file
from kdedge_runtime import Model
from kdedge_runtime.drawing.heatmap import UNMEASURED, MapDisplay, contrast
from kdedge_runtime.preprocess import fit
from kdedge_runtime.sources.scenes import LABELS, render_scene
from kdedge_runtime.util.arrays import Floats, Pixels

__all__ = ["SCENES", "displacement", "measure_display"]

SCENES = 48
_SEARCHED = np.arange(-1.5, 1.501, 0.05)
"""Distances between the two maps, in cells."""
_LARGEST = 0.75
"""Half of the distance, in cells; more is no displacement but a chance match."""
_LEAST_PEARSON = 0.6
_SPREAD = 0.25
"""Largest difference between the displacements that two halves of the images give, in cells."""


def measure_display(model: Model, *, scenes: int = SCENES, at_once: int = 1) -> MapDisplay:
    """Measure where a model file's maps lie on images and how strong they typically are.

    A displacement that the images do not show reliably is 0.

    Args:
        model: a model file whose map explains a class.
        scenes: drawn images, each of which is run three times; on fewer than 24 a displacement is often unreliable.
        at_once: images in a batch; methods that average over many copies of an image take much memory for each.
    """
    if not model.has_map:
        return UNMEASURED
    images = _scenes(model, scenes)
    top = np.full(len(images), -1, dtype=np.int64)
    upright = gather(run_file(model, images, top, at_once), len(images))
    assert upright.maps is not None
    shifts = []
    for axis in (2, 1):
        flipped = np.ascontiguousarray(np.flip(images, axis))
        mirrored = gather(run_file(model, flipped, upright.explained_class, at_once), len(images)).maps
        assert mirrored is not None
        shifts.append(displacement(upright.maps, np.flip(mirrored, axis), axis))
    typical = float(np.median([contrast(saliency_map) for saliency_map in upright.maps]))
    return MapDisplay(shifts[0], shifts[1], typical if typical > 0 else None)


def displacement(maps: Floats, mirrored: Floats, axis: int) -> float:
    """Estimate the displacement of maps along an axis, in cells.

    Args:
        maps: `[N, h, w]`.
        mirrored: `[N, h, w]`, the maps of the mirrored images, mirrored back.
        axis: 1 for the vertical displacement, 2 for the horizontal one.

    Returns:
        Positive where the content lies below or to the right of the cells' middles; 0.0 where it is unreliable.
    """
    if maps.shape[axis] < 4:
        return 0.0
    # What all maps have in common, such as the mark of zero padding, does not move with an image's content.
    maps, mirrored = maps - maps.mean(axis=0), mirrored - mirrored.mean(axis=0)
    agreement = np.stack([_agreement(maps, mirrored, axis, distance) for distance in _SEARCHED])
    found = [_best(agreement[:, start::step]) for start, step in ((0, 1), (0, 2), (1, 2))]
    (half, pearson_there), *halves = found
    is_reliable = (
        pearson_there >= _LEAST_PEARSON and abs(half) < _LARGEST and abs(halves[0][0] - halves[1][0]) <= _SPREAD
    )
    return round(half, 3) if is_reliable else 0.0


def _scenes(model: Model, count: int) -> Pixels:
    rng, spec = np.random.default_rng(0), model.metadata.input
    side = max(spec.height, spec.width)
    return np.stack([fit(render_scene(LABELS[at % len(LABELS)], rng, side).image, spec) for at in range(count)])


def _agreement(maps: Floats, mirrored: Floats, axis: int, distance: float) -> NDArray[np.float64]:
    """Correlate maps with mirrored ones after moving each by half the distance towards the other, `[N]`.

    Moved both, they are interpolated equally. The outermost cells, which one of them lacks, do not count.
    """
    inner = [slice(None)] * 3
    inner[axis] = slice(1, -1)
    there, here = _moved(maps, distance / 2, axis)[tuple(inner)], _moved(mirrored, -distance / 2, axis)[tuple(inner)]
    return map_pearson(there, here)


def _moved(maps: Floats, distance: float, axis: int) -> Floats:
    """Move the content of maps along an axis by linear interpolation; border cells repeat."""
    size = maps.shape[axis]
    place = np.clip(np.arange(size) - distance, 0, size - 1)
    lower = np.floor(place).astype(np.int64)
    share = (place - lower).reshape([-1 if at == axis else 1 for at in range(maps.ndim)])
    upper = np.minimum(lower + 1, size - 1)
    moved: Floats = np.take(maps, lower, axis) * (1 - share) + np.take(maps, upper, axis) * share
    return moved


def _best(agreement: NDArray[np.float64]) -> tuple[float, float]:
    """Return half of the distance with the largest mean correlation, and that correlation; 0 and -1 for flat maps."""
    if np.isnan(agreement).all(axis=1).any():
        return 0.0, -1.0
    means = np.nanmean(agreement, axis=1)
    at = int(means.argmax())
    return float(_SEARCHED[at] / 2), float(means[at])
