"""Which images a person should see: the worst first, then what is usual."""

from dataclasses import dataclass

import numpy as np

from kdedge_export.candidates import WORDS, Role, reference
from kdedge_export.metrics import agreement
from kdedge_export.validate.samples import Evidence
from kdedge_runtime.util.arrays import Integers, evenly_spaced

__all__ = ["Section", "choose"]

CHANGED_ROWS = 8
WORST_ROWS = 20
WRONG_ROWS = 8
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

    First the pairs of maps that agree least between the origin and the file that ships, worst first; then the
    images whose answer changed on the way to the device, the origin's surest first; those that agree least between
    student and teacher; and last those around the median. A file that is held against nothing has its wrong answers,
    the surest first, and some images evenly spaced.
    """
    shipped = evidence.shipped
    if reference(shipped, evidence.predictions) is None:
        return _of_one_file(evidence, shipped)
    first, seen = WORDS[evidence.origin], set[int]()
    sections = [
        Section(
            "Worst maps",
            f"The least agreement between the maps of the {WORDS[shipped]} and the {first}, worst first.",
            _take(_by_pearson(evidence, shipped), WORST_ROWS, seen),
        ),
        Section(
            "Changed answers",
            f"The {WORDS[shipped]} gives another answer than the {first}, beyond those above; "
            f"the {first}’s surest answers first.",
            _take(_changed(evidence, shipped), CHANGED_ROWS, seen),
        ),
        Section(
            "Farthest from the teacher",
            "The least agreement between the maps of student and teacher, worst first.",
            _take(_by_pearson(evidence, "student"), FARTHEST_ROWS, seen),
        ),
        Section(
            "Typical images",
            f"Around the median agreement of the {WORDS[shipped]} with the {first}.",
            _take(_around_median(evidence, shipped), TYPICAL_ROWS, seen),
        ),
    ]
    return [section for section in sections if section.rows]


def _of_one_file(evidence: Evidence, role: Role) -> list[Section]:
    answers, seen = agreement.top1(evidence.predictions[role].logits), set[int]()
    sections = []
    if evidence.targets is not None:
        wrong = _surest(evidence, role, np.flatnonzero(answers != evidence.targets))
        note = f"The {WORDS[role]}’s surest wrong answers first."
        sections.append(Section("Wrong answers", note, _take(wrong, WRONG_ROWS, seen)))
    spaced = evenly_spaced(len(answers), TYPICAL_ROWS).tolist()
    sections.append(Section("Any images", "Evenly spaced among all.", _take(spaced, TYPICAL_ROWS, seen)))
    return [section for section in sections if section.rows]


def _take(ranked: list[int], most: int, seen: set[int]) -> tuple[int, ...]:
    fresh = [row for row in ranked if row not in seen][:most]
    seen.update(fresh)
    return tuple(fresh)


def _changed(evidence: Evidence, shipped: Role) -> list[int]:
    answers = agreement.top1(evidence.predictions[evidence.origin].logits)
    changed = np.flatnonzero(answers != agreement.top1(evidence.predictions[shipped].logits))
    return _surest(evidence, evidence.origin, changed)


def _surest(evidence: Evidence, role: Role, rows: Integers) -> list[int]:
    surest = evidence.probabilities[role][rows].max(axis=1)
    return [int(row) for row in rows[np.argsort(-surest, kind="stable")]]


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
