"""The default path of a model file: no class is asked for, and the map must be the top class's.

It is what a camera runs. Every other measurement names its class, and would never notice a graph that explains another
one by default.
"""

from dataclasses import dataclass

import numpy as np

from kdedge_runtime.model import Model
from kdedge_runtime.util.arrays import Pixels

__all__ = ["DefaultClass", "run_without_class"]

TOLERANCE = 1e-3
"""Largest difference of two runs of one file on one image, as a share of the map's range: kernels may add in another
order from run to run, and nothing else may differ."""


@dataclass(frozen=True)
class DefaultClass:
    """Result of running a model without naming a class."""

    images: int
    """Number of images that were run."""
    kept: int
    """Images with the map of their own top class."""
    fault: str | None
    """The first image's that has another map; None where all are kept."""


def run_without_class(model: Model, images: Pixels) -> DefaultClass:
    """Run a model with `class_index` left out, one image at a time, and again with its top class named.

    Args:
        model: with a map.
        images: uint8 RGB `[N, H, W, 3]` at the model's size.
    """
    faults = [fault for number in range(len(images)) if (fault := _fault(model, images[number][None], number))]
    return DefaultClass(len(images), len(images) - len(faults), faults[0] if faults else None)


def _fault(model: Model, image: Pixels, number: int) -> str | None:
    free = model.predict(image)
    top, explained = int(free.logits[0].argmax()), int(free.explained_class[0])
    if explained != top:
        return f"image {number} explains class {explained} by default, and its top class is {top}"
    named = model.predict(image, top)
    assert free.saliency_map is not None and named.saliency_map is not None
    largest = float(np.ptp(named.saliency_map)) or float(np.abs(named.saliency_map).max()) or 1.0
    error = float(np.abs(free.saliency_map - named.saliency_map).max()) / largest
    if not error <= TOLERANCE:  # so that a NaN is a fault
        return f"image {number} has another map by default than for its top class {top} (error {error:.0e})"
    return None
