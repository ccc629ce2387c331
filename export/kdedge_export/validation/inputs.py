"""Inputs of a validation: models, samples and device."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from kdedge_export.candidates import STUDENT, TEACHER, file_candidates
from kdedge_export.metrics.torch_predictions import TorchModel
from kdedge_export.validation.footprint import Footprint
from kdedge_export.validation.model_facts import Origin
from kdedge_export.validation.report import Data
from kdedge_runtime import Model
from kdedge_runtime.candidate import Candidate
from kdedge_runtime.devices import Budgets
from kdedge_runtime.errors import DataError
from kdedge_runtime.modalities import InputSpec
from kdedge_runtime.precision import FP32, precision_named
from kdedge_runtime.sources.source import Source
from kdedge_runtime.tasks import TASKS
from kdedge_runtime.util.arrays import Pixels, Targets

__all__ = ["Deployment", "Models", "ValidationSet"]


@dataclass(frozen=True)
class Models:
    """Models to validate."""

    student: TorchModel | None
    """Exported PyTorch module, from `wrap_for_export`; None for a file of another framework."""
    fp32: Model
    converted: Mapping[str, Model] = field(default_factory=dict)
    """Files in other precisions, by the name of the precision."""
    teacher: TorchModel | Model | None = None
    """Teacher of the student, if available; it takes the same samples."""
    trained_input: InputSpec | None = None
    """Input specification from training, which the files must match; None skips the check."""
    origins: Mapping[str, Origin] = field(default_factory=dict)

    @property
    def by_candidate(self) -> dict[Candidate, TorchModel | Model]:
        """Models that are present: teacher, student, and the files from the most to the least exact.

        Raises:
            UsageError: there is no precision of that name.
        """
        modules = {TEACHER: self.teacher, STUDENT: self.student}
        files = {
            Candidate.of_file(precision_named(name), file.path): file
            for name, file in ({FP32.name: self.fp32} | dict(self.converted)).items()
        }
        present = {candidate: model for candidate, model in modules.items() if model is not None}
        return present | {candidate: files[candidate] for candidate in file_candidates(files)}


@dataclass(frozen=True)
class ValidationSet:
    """Samples to validate on.

    Raises:
        DataError: there are no samples, or targets, names or classes do not match.
    """

    samples: Pixels
    """Preprocessed samples `[N, *input.shape]`; images are uint8 RGB `[N, H, W, 3]`."""
    labels: Sequence[str]
    """Class names in the order of the student's logits."""
    targets: Targets | None = None
    """int64 `[N]`, the ground truth as the task encodes it: for classification classes; None for unlabeled samples."""
    task: str = "classify"
    """Task of the targets, a key of `kdedge_export.tasks.EXPORT_TASKS`."""
    names: Sequence[str] | None = None
    """Name of each sample, such as its path; numbers if None."""
    held_out: NDArray[np.bool_] | None = None
    """bool `[N]`, samples not used to fit the files' temperature; None for all."""
    masks: Sequence[NDArray[np.bool_] | None] | None = None
    """bool `[H, W]` per sample, True on the object; None if unknown."""
    source: Data = field(default_factory=Data)
    """Description of the data for the report."""
    unfamiliar: Mapping[str, Pixels] = field(default_factory=dict)
    """Samples that belong to none of the classes, by the name of their group."""
    background: Callable[[], Source] | None = None
    """Creates the source of recordings that contain no class; None counts no false alarms."""

    def __post_init__(self) -> None:
        n = len(self.samples)
        if n == 0:
            raise DataError("There are no samples to validate on. Name a folder that contains samples: `--data DATA`.")
        per_sample = {"targets": self.targets, "names": self.names, "flags": self.held_out, "masks": self.masks}
        for what, values in per_sample.items():
            if values is not None and len(values) != n:
                raise DataError(f"Found {n} samples but {len(values)} {what}. Expected one per sample.")
        is_class = TASKS[self.task].has_classes
        if is_class and self.targets is not None and not _are_indices(self.targets, len(self.labels)):
            raise DataError(
                f"A target is outside the {len(self.labels)} labels (found {self.targets.min()} to "
                f"{self.targets.max()}). Expected indices into the model's labels. Validate on the classes that the "
                "model was trained on."
            )


@dataclass(frozen=True)
class Deployment:
    """Target device of the files, and their measured size and cost."""

    device: str | None = None
    budgets: Budgets = field(default_factory=Budgets)
    """Limits of the device."""
    footprints: Mapping[str, Footprint] = field(default_factory=dict)
    """Measured size and cost of the files."""


def _are_indices(targets: Targets, count: int) -> bool:
    return bool(((targets >= 0) & (targets < count)).all())
