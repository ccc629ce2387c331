"""Recognition of unfamiliar samples: separation by familiarity, and detection at the threshold of a file."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kdedge_export.metrics.auroc import auroc
from kdedge_export.metrics.confidence import DIFFERENCE, SHARE, Interval, mean_interval
from kdedge_export.metrics.file_predictions import batch_size, batches
from kdedge_export.metrics.scores import Scores
from kdedge_export.metrics.task_metrics import TaskMetrics
from kdedge_runtime import Model
from kdedge_runtime.errors import ModelFileError
from kdedge_runtime.modalities import Sample
from kdedge_runtime.util.arrays import Floats, evenly_spaced

__all__ = ["MAX_KNOWN", "Detection", "DetectionDrop", "Recognition", "Rejection", "recognition"]

MAX_KNOWN = 1000
"""Maximum number of known samples, evenly spaced."""
_BATCH = 32


@dataclass(frozen=True)
class Rejection:
    """Known samples that a file calls unknown."""

    model: str
    samples: int
    rejected: float
    """Fraction of known samples in [0, 1] below the threshold."""
    rise: float | None
    """Fraction in [-1, 1] of known samples rejected in addition to the fp32 file's; None for the fp32 file."""
    intervals: Mapping[str, Interval | None]
    """95% intervals by field name."""


@dataclass(frozen=True)
class Detection:
    """Recognition of one group of unfamiliar samples by a file."""

    group: str
    model: str
    samples: int
    auroc: float
    """Area under the ROC curve of familiarity in [0, 1], known against unfamiliar samples."""
    max_softmax_auroc: float | None
    """The same area for the maximum softmax probability; None for a task without probabilities."""
    detected: float | None
    """Fraction of unfamiliar samples in [0, 1] below the threshold; None without a threshold."""
    intervals: Mapping[str, Interval | None]
    """95% intervals by field name."""


@dataclass(frozen=True)
class DetectionDrop:
    """Loss of detection of a file against the fp32 file, over the unfamiliar samples of all groups."""

    model: str
    samples: int
    drop: float
    """Fraction of samples in [-1, 1] that only the fp32 file detects, minus those that only this file detects."""
    interval: Interval | None
    """95% interval."""


@dataclass(frozen=True)
class Recognition:
    """Recognition of unfamiliar samples by all files."""

    method: str
    """Method of familiarity, see `kdedge_runtime.familiarity.Familiarity`."""
    threshold: float | None
    """Threshold of the fp32 file; the other files have their own. None without one."""
    known: tuple[Rejection, ...]
    """Rejected known samples of each file; empty without a threshold."""
    groups: tuple[Detection, ...]
    """Results of each file on each group."""
    drops: tuple[DetectionDrop, ...]
    """Loss of detection of each file but the fp32 file; empty without a threshold or without unfamiliar samples."""


@dataclass(frozen=True)
class _Scored:
    familiarity: Scores
    max_softmax: Scores
    unknown: NDArray[np.bool_]


def recognition(
    files: Mapping[str, Model], reference: str, known: Sample, groups: Mapping[str, Sample], task: TaskMetrics
) -> Recognition | None:
    """Measure how well files separate known from unfamiliar samples.

    Args:
        files: model files by name.
        reference: name of the fp32 file.
        known: samples of the known classes, which the statistics of familiarity were not fitted on.
        groups: unfamiliar samples by the name of their group; empty groups are skipped.
        task: metrics of the models' task.

    Returns:
        The results; None if the fp32 file has no familiarity.

    Raises:
        ModelFileError: a file has no familiarity, unlike the fp32 file.
    """
    described = files[reference].metadata.familiarity
    if described is None:
        return None
    some = known[evenly_spaced(len(known), MAX_KNOWN)]
    order = [reference, *(name for name in files if name != reference)]
    has_threshold = described.threshold is not None
    on_known: dict[str, _Scored] = {}
    rejections, detections = [], []
    for role in order:
        on_known[role] = _scored(files[role], some)
        if has_threshold:
            rejections.append(_rejection(role, on_known[role], None if role == reference else on_known[reference]))
    unknown: dict[str, list[NDArray[np.bool_]]] = {role: [] for role in order}
    for group, samples in groups.items():
        if not len(samples):
            continue
        for role in order:
            found = _scored(files[role], samples)
            unknown[role].append(found.unknown)
            detections.append(_detection(group, role, on_known[role], found, has_threshold, task))
    drops = [_drop(role, unknown[reference], unknown[role]) for role in order[1:] if has_threshold and unknown[role]]
    return Recognition(described.method, described.threshold, tuple(rejections), tuple(detections), tuple(drops))


def _rejection(role: str, found: _Scored, base: _Scored | None) -> Rejection:
    rejected = found.unknown.astype(np.float64)
    intervals = {"rejected": mean_interval(rejected, SHARE)}
    rise = None
    if base is not None:
        more = rejected - base.unknown
        rise, intervals["rise"] = float(more.mean()), mean_interval(more, DIFFERENCE)
    return Rejection(role, len(rejected), float(rejected.mean()), rise, intervals)


def _drop(role: str, before: list[NDArray[np.bool_]], after: list[NDArray[np.bool_]]) -> DetectionDrop:
    lost = np.concatenate(before).astype(np.float64) - np.concatenate(after)
    return DetectionDrop(role, len(lost), float(lost.mean()), mean_interval(lost, DIFFERENCE))


def _detection(
    group: str, role: str, known: _Scored, found: _Scored, has_threshold: bool, task: TaskMetrics
) -> Detection:
    detected = None
    intervals: dict[str, Interval | None] = {}
    if has_threshold:
        hits = found.unknown.astype(np.float64)
        detected, intervals["detected"] = float(hits.mean()), mean_interval(hits, SHARE)
    return Detection(
        group,
        role,
        len(found.unknown),
        auroc(known.familiarity, found.familiarity),
        auroc(known.max_softmax, found.max_softmax) if task.has_probabilities else None,
        detected,
        intervals,
    )


def _scored(model: Model, samples: Sample) -> _Scored:
    parts = [
        model.predict(samples[batch], explained=False)
        for batch in batches(np.arange(len(samples)), batch_size(model, _BATCH))
    ]
    familiarity = [part.familiarity for part in parts if part.familiarity is not None]
    unknown = [part.unknown for part in parts if part.unknown is not None]
    if len(familiarity) < len(parts):
        raise ModelFileError(f"{model.path} has no output familiarity, unlike its fp32 file. Export both again.")
    scores = np.concatenate([part.scores.max(axis=1) for part in parts])
    return _Scored(_lowest_if_broken(np.concatenate(familiarity)), _lowest_if_broken(scores), np.concatenate(unknown))


def _lowest_if_broken(scores: Floats) -> NDArray[np.float64]:
    """Replace scores that are not finite, as of a damaged file, by the lowest."""
    return np.where(np.isfinite(scores), scores.astype(np.float64), -np.inf)
