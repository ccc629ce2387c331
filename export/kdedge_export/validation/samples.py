"""Per-sample data shown in the report page; not part of `report.json`."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kdedge_export.candidates import origin, shipped
from kdedge_export.metrics.torch_predictions import Predictions
from kdedge_export.modalities import ExportModality
from kdedge_runtime.candidate import Candidate
from kdedge_runtime.modalities import Sample
from kdedge_runtime.tasks import TASKS
from kdedge_runtime.util.arrays import Floats, Integers, Targets

__all__ = ["SampleGallery"]


@dataclass(frozen=True)
class SampleGallery:
    """Samples, predictions and saliency maps of one validation."""

    modality: ExportModality
    task: str
    """Task of the models, a key of `kdedge_export.tasks.EXPORT_TASKS`."""
    samples: Sample
    """Preprocessed samples `[N, …]`; images are uint8 RGB `[N, H, W, 3]`."""
    targets: Targets | None
    """int64 `[N]`, the target classes; None for unlabeled samples."""
    labels: tuple[str, ...]
    names: tuple[str, ...]
    """Name of each sample: a path relative to the dataset."""
    candidates: tuple[Candidate, ...]
    """Models: teacher, student, and the files from the most to the least exact, as far as present."""
    predictions: Mapping[str, Predictions]
    """Predictions by name, in the order of the candidates."""
    scores: Mapping[str, Floats]
    """Scores `[N, K]` of each model, at the temperature stored in its file; for classification probabilities."""
    pearson: Mapping[str, NDArray[np.float64]]
    """Correlation of each candidate's maps with its reference's, `[N]` (see
    `kdedge_export.metrics.comparison.pair_pearson`). Candidates without a map are missing."""

    shifts: Mapping[str, tuple[float, float]]
    """Displacement of each model's maps, in map positions (`MapDisplay.shift`); missing if unknown."""

    @property
    def has_classes(self) -> bool:
        """True if predictions are classes, False if they are values; see `kdedge_runtime.tasks.Task`."""
        return TASKS[self.task].has_classes

    @property
    def explained_class(self) -> Integers:
        """`[N]`, the class that all maps explain: the top-1 class of `origin`."""
        return self.predictions[self.origin.name].explained_class

    @property
    def origin(self) -> Candidate:
        """Model whose predictions all maps explain: the PyTorch student, or the fp32 file without one."""
        return origin(self.candidates)

    @property
    def shipped(self) -> Candidate:
        """Model file to deploy, that of the least exact precision."""
        return shipped(self.candidates)
