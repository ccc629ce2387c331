"""Known samples for an export: for the statistics of familiarity, and for its threshold."""

from kdedge.data import DatasetIndex, decode
from kdedge.data.splits import lowest_ranked
from kdedge.models.artifacts import Artifacts
from kdedge.pipelines.calibration_samples import CalibrationTarget, known_classes, known_samples
from kdedge_export.familiarity import FamiliaritySamples
from kdedge_runtime.errors import KdedgeError
from kdedge_runtime.tasks import TASKS
from kdedge_runtime.util.progress import ProgressCallback

__all__ = ["familiarity_samples"]

_TRAINING = 1500
"""Approximate number of training samples, equally many of each class."""
_MIN_PER_CLASS = 4
_KNOWN = 1500
"""Maximum number of validation samples; more hardly change the threshold."""


def familiarity_samples(
    artifacts: Artifacts, trained: CalibrationTarget, data: str | None, progress: ProgressCallback
) -> FamiliaritySamples:
    """Read samples of the known classes.

    Args:
        artifacts: run, model name, or model file.
        trained: the model or its metadata.
        data: dataset location; None takes the run's, which an export does not require.
        progress: called while samples are read.

    Returns:
        The samples. Without a dataset they are empty, and give the reason.

    Raises:
        KdedgeError: the given dataset cannot be read, or belongs to another modality or task.
    """
    if not TASKS[trained.task].has_classes:
        return FamiliaritySamples(why_not="familiarity applies to tasks with classes only")
    if data is None and artifacts.run is None:
        return FamiliaritySamples(why_not="a model without a run has no known samples: give them with --data DIR")
    try:
        return _read(known_samples(artifacts, trained, data), trained, progress)
    except KdedgeError as error:
        if data is not None:
            raise
        return FamiliaritySamples(why_not=f"the run's samples cannot be read: {error}")


def _read(dataset: DatasetIndex, trained: CalibrationTarget, progress: ProgressCallback) -> FamiliaritySamples:
    classes = len(dataset.labels)
    per_class = max(_MIN_PER_CLASS, _TRAINING // classes) if classes else _TRAINING
    training = decode(lowest_ranked(dataset.train, per_class=per_class, seed=0), trained.input, progress=progress)
    known = decode(dataset.val.thinned(_KNOWN), trained.input, progress=progress)
    return FamiliaritySamples(
        training.samples,
        known_classes(training.targets, dataset.labels, trained.labels, dataset.source),
        known.samples,
    )
