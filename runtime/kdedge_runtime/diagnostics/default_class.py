"""Check of the default class: without `class_index`, the map must explain the top-1 class.

Devices run models this way. Other measurements pass a class and cannot detect a wrong default.
"""

from dataclasses import dataclass

import numpy as np

from kdedge_runtime.modalities import Sample
from kdedge_runtime.model import Model

__all__ = ["DefaultClass", "run_without_class"]

TOLERANCE = 1e-3
"""Largest difference between two runs on one sample, relative to the map's range. Kernels may sum in a different order
from run to run.
"""


@dataclass(frozen=True)
class DefaultClass:
    """Result of running a model without `class_index`."""

    samples: int
    """Number of samples."""
    kept: int
    """Number of samples whose map explains their top-1 class."""
    fault: str | None
    """Description of the first failing sample, or None."""


def run_without_class(model: Model, samples: Sample) -> DefaultClass:
    """Run a model without `class_index`, one sample at a time, and again with the top-1 class.

    Args:
        model: model with a saliency map.
        samples: preprocessed samples `[N, …]`.
    """
    faults = [fault for number in range(len(samples)) if (fault := _fault(model, samples[number][None], number))]
    return DefaultClass(len(samples), len(samples) - len(faults), faults[0] if faults else None)


def _fault(model: Model, sample: Sample, number: int) -> str | None:
    free = model.predict(sample)
    top, explained = int(free.logits[0].argmax()), int(free.explained_class[0])
    if explained != top:
        return f"sample {number} explains class {explained} by default, but its top class is {top}"
    named = model.predict(sample, top)
    assert free.saliency_map is not None and named.saliency_map is not None
    largest = float(np.ptp(named.saliency_map)) or float(np.abs(named.saliency_map).max()) or 1.0
    error = float(np.abs(free.saliency_map - named.saliency_map).max()) / largest
    if not error <= TOLERANCE:  # also catches NaN
        return f"the default map of sample {number} differs from the map of its top class {top} (error {error:.0e})"
    return None
