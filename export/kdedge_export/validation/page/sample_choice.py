"""Selection of the samples shown in the report: the worst first, then typical ones."""

from dataclasses import dataclass

import numpy as np

from kdedge_export.candidates import STUDENT, reference
from kdedge_export.tasks import EXPORT_TASKS
from kdedge_export.validation.samples import SampleGallery
from kdedge_runtime.candidate import Candidate
from kdedge_runtime.util.arrays import Integers, evenly_spaced

__all__ = ["Section", "choose"]

CHANGED_ROWS = 8
WORST_ROWS = 20
WRONG_ROWS = 8
FARTHEST_ROWS = 8
TYPICAL_ROWS = 6


@dataclass(frozen=True)
class Section:
    """Group of samples shown together."""

    title: str
    note: str
    """Property shared by the samples, in one sentence."""
    rows: tuple[int, ...]
    """Sample indices in display order."""


def choose(evidence: SampleGallery) -> list[Section]:
    """Select the gallery sections; no sample appears twice, and empty sections are left out.

    The sections are: the lowest map agreement between the source model and the deployed file, worst first; predictions
    changed by export, most confident first; the lowest map agreement between student and teacher; and samples around
    the median. A file without a reference has its most confident wrong predictions, and evenly spaced samples.
    """
    shipped = evidence.shipped
    if reference(shipped, evidence.candidates) is None:
        return _of_one_file(evidence, shipped)
    first, seen = evidence.origin.words, set[int]()
    what = "classes" if evidence.has_classes else "values"
    sections = [
        Section(
            "Worst maps",
            f"Lowest agreement between the maps of the {shipped.words} and the {first}, worst first.",
            _take(_by_pearson(evidence, shipped), WORST_ROWS, seen),
        ),
        Section(
            "Changed predictions",
            f"Samples on which the {shipped.words} and the {first} predict different {what}, not listed above. The "
            f"{first}’s most confident predictions come first.",
            _take(_changed(evidence, shipped), CHANGED_ROWS, seen),
        ),
        Section(
            "Farthest from the teacher",
            "Lowest agreement between the maps of student and teacher, worst first.",
            _take(_by_pearson(evidence, STUDENT), FARTHEST_ROWS, seen),
        ),
        Section(
            "Typical samples",
            f"Samples around the median agreement of the {shipped.words} with the {first}.",
            _take(_around_median(evidence, shipped), TYPICAL_ROWS, seen),
        ),
    ]
    return [section for section in sections if section.rows]


def _of_one_file(evidence: SampleGallery, file: Candidate) -> list[Section]:
    logits, seen = evidence.predictions[file.name].logits, set[int]()
    sections = []
    if evidence.targets is not None:
        wrong = _most_confident(
            evidence, file, np.flatnonzero(EXPORT_TASKS[evidence.task].correct(logits, evidence.targets) < 1)
        )
        note = f"The {file.words}’s most confident wrong predictions first."
        sections.append(Section("Wrong predictions", note, _take(wrong, WRONG_ROWS, seen)))
    spaced = evenly_spaced(len(logits), TYPICAL_ROWS).tolist()
    sections.append(Section("Examples", "Evenly spaced among all samples.", _take(spaced, TYPICAL_ROWS, seen)))
    return [section for section in sections if section.rows]


def _take(ranked: list[int], most: int, seen: set[int]) -> tuple[int, ...]:
    fresh = [row for row in ranked if row not in seen][:most]
    seen.update(fresh)
    return tuple(fresh)


def _changed(evidence: SampleGallery, shipped: Candidate) -> list[int]:
    before, after = (evidence.predictions[each.name].logits for each in (evidence.origin, shipped))
    changed = np.flatnonzero(EXPORT_TASKS[evidence.task].agreement(before, after) < 1)
    return _most_confident(evidence, evidence.origin, changed)


def _most_confident(evidence: SampleGallery, candidate: Candidate, rows: Integers) -> list[int]:
    surest = evidence.scores[candidate.name][rows].max(axis=1)
    return [int(row) for row in rows[np.argsort(-surest, kind="stable")]]


def _by_pearson(evidence: SampleGallery, candidate: Candidate) -> list[int]:
    if candidate.name not in evidence.pearson:
        return []
    scores = evidence.pearson[candidate.name]
    ranked = np.argsort(scores, kind="stable")
    return [int(row) for row in ranked if not np.isnan(scores[row])]


def _around_median(evidence: SampleGallery, candidate: Candidate) -> list[int]:
    ranked = _by_pearson(evidence, candidate)
    if not ranked:
        return list(range(len(evidence.samples)))
    middle = len(ranked) / 2 - 0.5
    nearest = sorted(range(len(ranked)), key=lambda place: abs(place - middle))
    return [ranked[place] for place in nearest]
