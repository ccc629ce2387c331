"""Samples of the report, with the prediction and saliency map of every model."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from kdedge_export.candidates import reference
from kdedge_export.tasks import EXPORT_TASKS
from kdedge_export.validation.page.sample_choice import Section
from kdedge_export.validation.samples import SampleGallery
from kdedge_runtime.candidate import Candidate
from kdedge_runtime.tasks import TASKS

__all__ = ["GalleryRow", "MapPair", "ModelCell", "gallery_rows", "lowest_and_highest"]

_PAIRS = 3


@dataclass(frozen=True)
class ModelCell:
    """Prediction and map of one model for one sample."""

    candidate: Candidate
    label: str
    value: str
    """Score of the prediction, such as `93%`; empty without a prediction."""
    is_changed: bool
    """True if the prediction differs from that of the source model."""
    is_wrong: bool
    map: str | None
    """Overlay as a data URI; None without a map."""
    against: Candidate | None
    """Model with which the map is compared; None without one."""
    score: float | None
    """Correlation with its map; None if both maps are constant."""


@dataclass(frozen=True)
class GalleryRow:
    """One sample with the results of all models."""

    name: str
    image: str
    """Thumbnail as a data URI."""
    target: str | None
    explained: str
    """Label of the explained class."""
    cells: tuple[ModelCell, ...]


@dataclass(frozen=True)
class MapPair:
    """Maps of the source model and the deployed file for one sample."""

    name: str
    score: float
    maps: Mapping[Candidate, str]
    """Overlay of each model as a data URI."""


def gallery_rows(section: Section, evidence: SampleGallery) -> list[GalleryRow]:
    """Collect the rows of a section."""
    return [_row(number, evidence) for number in section.rows]


def lowest_and_highest(evidence: SampleGallery) -> dict[str, list[MapPair]]:
    """Collect the samples with the lowest and highest map agreement with the source model; empty without maps."""
    scores = evidence.pearson.get(evidence.shipped.name, np.array([]))
    ranked = [int(row) for row in np.argsort(scores, kind="stable") if not np.isnan(scores[row])]
    if len(ranked) < 2 * _PAIRS:
        return {}
    return {
        "Lowest agreement": [_pair(row, evidence) for row in ranked[:_PAIRS]],
        "Highest agreement": [_pair(row, evidence) for row in ranked[: -_PAIRS - 1 : -1]],
    }


def _pair(number: int, evidence: SampleGallery) -> MapPair:
    sides = (evidence.origin, evidence.shipped)
    maps = {each: uri for each in sides if (uri := _overlay(each, number, evidence)) is not None}
    return MapPair(evidence.names[number], float(evidence.pearson[evidence.shipped.name][number]), maps)


def _row(number: int, evidence: SampleGallery) -> GalleryRow:
    predictions = [evidence.predictions[candidate.name] for candidate in evidence.candidates]
    maps = [one.maps[number] for one in predictions if one.maps is not None]
    return GalleryRow(
        name=evidence.names[number],
        image=evidence.modality.figure_uri(evidence.modality.thumbnail(evidence.samples[number], maps)),
        target=_target(number, evidence),
        explained=evidence.labels[evidence.explained_class[number]],
        cells=tuple(_cell(candidate, number, evidence) for candidate in evidence.candidates),
    )


def _target(number: int, evidence: SampleGallery) -> str | None:
    if evidence.targets is None or not evidence.has_classes:
        return None
    label: str = evidence.labels[int(evidence.targets[number])]
    return label


def _cell(candidate: Candidate, number: int, evidence: SampleGallery) -> ModelCell:
    role = candidate.name
    row, task = slice(number, number + 1), EXPORT_TASKS[evidence.task]
    before, after = (evidence.predictions[name].logits[row] for name in (evidence.origin.name, role))
    is_valid = bool(np.isfinite(after).all())
    label, value = TASKS[evidence.task].ranking(evidence.scores[role][number], evidence.labels)[0]
    against = reference(candidate, evidence.candidates) if role in evidence.pearson else None
    score = math.nan if against is None else float(evidence.pearson[role][number])
    return ModelCell(
        candidate=candidate,
        label=label if is_valid else "no prediction",
        value=TASKS[evidence.task].format_score(value) if is_valid else "",
        is_changed=bool(task.agreement(before, after)[0] < 1),
        is_wrong=evidence.targets is not None
        and task.bounds is not None  # values are never exact
        and bool(task.correct(after, evidence.targets[row])[0] < 1),
        map=_overlay(candidate, number, evidence),
        against=against,
        score=None if math.isnan(score) else score,
    )


def _overlay(candidate: Candidate, number: int, evidence: SampleGallery) -> str | None:
    maps = evidence.predictions[candidate.name].maps
    if maps is None:
        return None
    shift = evidence.shifts.get(candidate.name, (0.0, 0.0))
    return evidence.modality.figure_uri(evidence.modality.overlay(evidence.samples[number], maps[number], shift))
