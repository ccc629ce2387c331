"""Which images a person should see: the worst first, then what is usual."""

from dataclasses import dataclass

import numpy as np

from kdedge_export.validate import metrics
from kdedge_export.validate.evidence import Evidence
from kdedge_export.validate.roles import REFERENCE, WORDS, Role

__all__ = ["Section", "choose"]

CHANGED_ROWS = 8
WORST_ROWS = 20
FARTHEST_ROWS = 8
TYPICAL_ROWS = 6


@dataclass(frozen=True)
class Section:
    """Images shown together."""

    title: str
    note: str
    """What they have in common, in one sentence."""
    rows: tuple[int, ...]
    """Image numbers, in the order in which they are shown."""


def choose(evidence: Evidence) -> list[Section]:
    """The sections of the gallery; no image appears twice, and a section without images is left out.

    First the pairs of maps that agree least between the student and the file that ships, worst first; then the
    images whose answer changed on the way to the device, the student's surest first; those that agree least between
    student and teacher; and last those around the median.
    """
    shipped = evidence.shipped
    seen: set[int] = set()
    sections = [
        Section(
            "Worst maps",
            f"The least agreement between the maps of the {WORDS[shipped]} and the PyTorch student, worst first.",
            _take(_by_pearson(evidence, shipped), WORST_ROWS, seen),
        ),
        Section(
            "Changed answers",
            f"The {WORDS[shipped]} gives another answer than the PyTorch student, beyond those above; "
            "the student’s surest answers first.",
            _take(_changed(evidence, shipped), CHANGED_ROWS, seen),
        ),
        Section(
            "Farthest from the teacher",
            "The least agreement between the maps of student and teacher, worst first.",
            _take(_by_pearson(evidence, "student"), FARTHEST_ROWS, seen),
        ),
        Section(
            "Typical images",
            f"Around the median agreement of the {WORDS[shipped]} with the PyTorch student.",
            _take(_around_median(evidence, shipped), TYPICAL_ROWS, seen),
        ),
    ]
    return [section for section in sections if section.rows]


def _take(ranked: list[int], most: int, seen: set[int]) -> tuple[int, ...]:
    fresh = [row for row in ranked if row not in seen][:most]
    seen.update(fresh)
    return tuple(fresh)


def _changed(evidence: Evidence, shipped: Role) -> list[int]:
    answers = metrics.top1(evidence.predictions[REFERENCE[shipped]].logits)
    changed = np.flatnonzero(answers != metrics.top1(evidence.predictions[shipped].logits))
    surest = evidence.probabilities[REFERENCE[shipped]][changed].max(axis=1)
    return [int(row) for row in changed[np.argsort(-surest, kind="stable")]]


def _by_pearson(evidence: Evidence, candidate: Role) -> list[int]:
    if candidate not in evidence.pearson:
        return []
    scores = evidence.pearson[candidate]
    ranked = np.argsort(scores, kind="stable")
    return [int(row) for row in ranked if not np.isnan(scores[row])]


def _around_median(evidence: Evidence, candidate: Role) -> list[int]:
    ranked = _by_pearson(evidence, candidate)
    if not ranked:
        return list(range(len(evidence.images)))
    middle = len(ranked) / 2 - 0.5
    nearest = sorted(range(len(ranked)), key=lambda place: abs(place - middle))
    return [ranked[place] for place in nearest]
