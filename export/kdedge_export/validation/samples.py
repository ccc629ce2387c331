"""Per-image data shown in the report page; not part of `report.json`."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kdedge_export.candidates import Role, origin, shipped
from kdedge_export.metrics.torch_predictions import Predictions
from kdedge_export.modalities import ExportModality
from kdedge_runtime.modalities import Sample
from kdedge_runtime.util.arrays import Floats, Integers

__all__ = ["SampleGallery"]


@dataclass(frozen=True)
class SampleGallery:
    """Images, predictions and saliency maps of one validation."""

    modality: ExportModality
    images: Sample
    """Preprocessed samples `[N, …]`; images are uint8 RGB `[N, H, W, 3]`."""
    targets: Integers | None
    """int64 `[N]`, the target classes; None for unlabeled images."""
    labels: tuple[str, ...]
    names: tuple[str, ...]
    """Name of each image: a path relative to the dataset."""
    predictions: Mapping[Role, Predictions]
    """Predictions by role, in the order teacher, student, fp32, int8, as far as present."""
    probabilities: Mapping[Role, Floats]
    """Probabilities `[N, K]` of each model, at the temperature stored in its file."""
    pearson: Mapping[Role, NDArray[np.float64]]
    """Correlation of each candidate's maps with its reference's, `[N]` (see
    `kdedge_export.metrics.comparison.pair_pearson`). Candidates without a map are missing."""

    shifts: Mapping[Role, tuple[float, float]]
    """Displacement of each model's maps, in map positions (`MapDisplay.shift`); missing if unknown."""

    @property
    def explained_class(self) -> Integers:
        """`[N]`, the class that all maps explain: the top-1 class of `origin`."""
        return self.predictions[self.origin].explained_class

    @property
    def origin(self) -> Role:
        """Role whose predictions all maps explain: the PyTorch student, or the fp32 file without one."""
        return origin(self.predictions)

    @property
    def shipped(self) -> Role:
        """Role of the deployed file: int8 if present, else fp32."""
        return shipped(self.predictions)
