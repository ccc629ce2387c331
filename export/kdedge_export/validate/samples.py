"""What the report's page shows image by image; it is not part of `report.json`."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kdedge_export.candidates import Role, origin, shipped
from kdedge_export.metrics.torch_predictions import Predictions
from kdedge_runtime.util.arrays import Floats, Integers, Pixels

__all__ = ["Evidence"]


@dataclass(frozen=True)
class Evidence:
    """Pictures, answers and maps of one validation."""

    images: Pixels
    """uint8 RGB `[N, H, W, 3]` at the model's size."""
    targets: Integers | None
    """`[N]`, the right classes; None for images without labels."""
    labels: tuple[str, ...]
    names: tuple[str, ...]
    """What each image is called: a path relative to the data."""
    predictions: Mapping[Role, Predictions]
    """In the order in which the model travels: teacher, student, fp32, int8, as far as there are any."""
    probabilities: Mapping[Role, Floats]
    """`[N, K]` of each model, at the temperature that its file states."""
    pearson: Mapping[Role, NDArray[np.float64]]
    """Of each candidate's maps with its reference's, `[N]` (see `kdedge_export.metrics.comparison.pair_pearson`);
    candidates without a map are missing."""

    shifts: Mapping[Role, tuple[float, float]]
    """Displacement of each model's maps, in map positions (`MapDisplay.shift`); absent if unknown."""

    @property
    def explained_class(self) -> Integers:
        """`[N]`, the class that all maps were asked about: the origin's top class."""
        return self.predictions[self.origin].explained_class

    @property
    def origin(self) -> Role:
        """The model that all maps explain the answers of: the PyTorch student, else the fp32 file."""
        return origin(self.predictions)

    @property
    def shipped(self) -> Role:
        """The file that goes to the device: int8 where there is one."""
        return shipped(self.predictions)
