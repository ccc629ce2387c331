"""Interface of a demonstration: the samples that it draws, and its networks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from kdedge.config.train_config import TrainConfig
    from kdedge_runtime.sources.source import Source

__all__ = ["DemoScenario", "DemoSizes", "Masks"]

Masks: TypeAlias = NDArray[np.bool_]
"""True where the evidence for the class of a sample lies, `[height, width]` at any resolution."""


@dataclass(frozen=True)
class DemoSizes:
    """Numbers of samples and epochs of a demonstration."""

    train: int
    """Samples per class for training."""
    val: int
    """Samples per class for the choice of the epoch."""
    unseen: int
    """Samples per class for validation."""
    teacher_epochs: int
    student_epochs: int
    frames: int
    """Frames of the synthetic source."""


class DemoScenario(ABC):
    """Demonstration of one modality. Its samples are drawn, so that the evidence for their class is known exactly."""

    @property
    @abstractmethod
    def sizes(self) -> DemoSizes:
        """Numbers of samples and epochs."""

    @property
    @abstractmethod
    def noun(self) -> str:
        """Name of the samples in the plural, such as `scenes`."""

    @property
    @abstractmethod
    def evidence(self) -> str:
        """Name of the region of the masks, such as `object`."""

    @property
    @abstractmethod
    def labels(self) -> tuple[str, ...]:
        """Class names."""

    @abstractmethod
    def write(self, root: Path, train: int, val: int, seed: int) -> Mapping[str, Masks]:
        """Write a dataset with the given number of samples per class.

        Returns:
            Masks of the validation samples, by their names in the dataset index.
        """

    @abstractmethod
    def teacher(self, data: Path) -> TrainConfig:
        """Return the options of the teacher's training."""

    @abstractmethod
    def student(self, data: Path, teacher: Path) -> TrainConfig:
        """Return the options of the distillation."""

    @abstractmethod
    def source(self, out: Path) -> Source:
        """Create a source of labeled frames, as a sensor would return them.

        Args:
            out: folder for files that the source reads.
        """

    @property
    @abstractmethod
    def live_source(self) -> str:
        """Value of `--source` in the next command."""

    @property
    @abstractmethod
    def next_data(self) -> str:
        """Command that starts with the user's own samples."""
