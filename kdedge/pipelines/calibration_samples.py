"""Samples for calibration, and held-out samples to measure the quantization loss."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from kdedge.data import DatasetIndex, decode, index_dataset
from kdedge.data.left_out import leave_out
from kdedge.data.readers.reader_choice import require_kind
from kdedge.models.artifacts import Artifacts
from kdedge.pipelines.origins import as_model_classes
from kdedge_export.quantization import CalibrationSet
from kdedge_runtime.errors import DataError, UsageError
from kdedge_runtime.modalities import InputSpec
from kdedge_runtime.util.arrays import Integers, Targets
from kdedge_runtime.util.progress import ProgressCallback

__all__ = ["CalibrationSamples", "CalibrationTarget", "calibration_samples", "known_classes", "known_samples"]

CALIBRATION_SAMPLES = 256
"""Maximum number of calibration samples; more samples hardly change the activation ranges."""
HELD_OUT_SAMPLES = 512
"""Maximum number of held-out samples, at most a third of the samples.

They come from the training split, but are not used for calibration. Choices during quantization are measured on them,
so the validation split stays untouched.
"""


@dataclass(frozen=True)
class CalibrationSamples:
    """Training samples at the model's input size."""

    sets: CalibrationSet
    """Samples to calibrate on, and held-out samples with their targets in the model's order."""
    problems: str | None
    """Description of unreadable files, or None."""


class CalibrationTarget(Protocol):
    """Protocol of a model or file metadata that selects calibration samples."""

    @property
    def input(self) -> InputSpec:
        """Input size, resizing rule and normalization."""

    @property
    def task(self) -> str:
        """Task of the model."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names in the order of the logits."""


def calibration_samples(
    artifacts: Artifacts, trained: CalibrationTarget, data: str | None, progress: ProgressCallback
) -> CalibrationSamples:
    """Select evenly spaced training samples; validation samples are never used.

    Args:
        artifacts: run, model name, or model file.
        trained: the model or its metadata.
        data: dataset location; None takes the run's training split.
        progress: called while samples are read.

    Raises:
        UsageError: no dataset is given or recorded.
    """
    if data is None and artifacts.run is None:
        raise UsageError(
            "Quantization needs samples to calibrate on, and a model without a run has none recorded. Give "
            "a folder of samples similar to those seen in use: --data DIR."
        )
    dataset = known_samples(artifacts, trained, data)
    split = dataset.train
    held_out = min(HELD_OUT_SAMPLES, len(split) // 3)
    chosen = split.thinned(CALIBRATION_SAMPLES + held_out)
    count = len(chosen)
    decoded = decode(chosen, trained.input, progress=progress)
    aside = np.diff(np.arange(len(decoded) + 1) * held_out // count) > 0  # also evenly spaced
    if not aside.any():  # with one or two samples, measure on the calibration samples
        aside = np.ones(len(decoded), dtype=bool)
    calibration = decoded.samples[~aside] if not aside.all() else decoded.samples
    targets = known_classes(decoded.targets, dataset.labels, trained.labels, dataset.source)
    problems = str(decoded.problems) if decoded.problems else None
    sets = CalibrationSet(calibration, decoded.samples[aside], None if targets is None else targets[aside])
    return CalibrationSamples(sets, problems)


def known_samples(artifacts: Artifacts, trained: CalibrationTarget, data: str | None) -> DatasetIndex:
    """Index a dataset, or the run's, without the classes that the run left out.

    Raises:
        KdedgeError: the dataset cannot be read, or belongs to another modality or task.
    """
    root = data or artifacts.dataset() or ""
    require_kind(root, trained.input.kind, artifacts.source)
    everything = index_dataset(root, artifacts.options_for(root), unlabeled_ok=True)
    dataset = leave_out(everything, artifacts.left_out)
    dataset.require(trained.input, trained.task, artifacts.source)
    return dataset


def known_classes(targets: Targets, labels: tuple[str, ...], known: tuple[str, ...], source: str) -> Integers | None:
    """Map targets to the model's classes; None if the samples have no class folders or the classes do not match."""
    try:
        return as_model_classes(targets, labels, known, source) if labels else None
    except DataError:
        return None
