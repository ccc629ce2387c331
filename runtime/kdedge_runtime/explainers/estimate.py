"""Result and interface of black-box explainers."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from kdedge_runtime.modalities import Sample
from kdedge_runtime.util.arrays import Floats
from kdedge_runtime.util.progress import ProgressCallback, no_progress

__all__ = ["MapEstimate", "Explainer"]


@dataclass(frozen=True, eq=False)
class MapEstimate:
    """Saliency map estimated from many evaluations of the model."""

    map: Floats
    """Signed map `[h, w]` over the model input: positive values support the class."""
    standard_error: Floats
    """Standard error `[h, w]` relative to the same method with unlimited (or all possible) evaluations. Infinite if
    there were too few evaluations to estimate it.
    """
    evaluations: int
    """Number of model evaluations."""
    elapsed_ms: float

    @property
    def relative_error(self) -> float:
        """Median standard error relative to the map's largest magnitude."""
        largest = float(np.abs(self.map).max())
        typical = float(np.median(self.standard_error))
        return typical / largest if largest > 0 else (0.0 if typical == 0 else np.inf)


class Explainer(Protocol):
    """Explainer of one class in one sample."""

    def __call__(self, sample: Sample, class_index: int, progress: ProgressCallback = no_progress) -> MapEstimate:
        """Explain a sample.

        Args:
            sample: preprocessed sample, see `InputSpec.preprocess`.
            class_index: class to explain.
            progress: called after each batch, in evaluations or, with a budget, in milliseconds.
        """
