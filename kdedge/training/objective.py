"""The weighted sum of terms that a run minimises."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kdedge.losses import TERMS, Term
from kdedge.losses.loss_inputs import Lesson
from kdedge.training.distributed import Group

__all__ = ["Objective"]


@dataclass(frozen=True)
class Objective:
    """Which terms, with which settings."""

    settings: Mapping[str, Mapping[str, float | int]]
    """Of every term by its name; those that are left out have their defaults."""

    @property
    def _terms(self) -> list[Term]:
        return [TERMS[name] for name in self.settings]

    @property
    def taught(self) -> bool:
        """Whether any term asks the teacher."""
        return any(term.taught for term in self._terms)

    @property
    def compares_layers(self) -> bool:
        """Whether any term needs inner features."""
        return any(term.features for term in self._terms)

    @property
    def map_terms(self) -> list[str]:
        """The terms that look at saliency maps."""
        return [name for name in self.settings if TERMS[name].map_classes]

    @property
    def map_classes(self) -> int:
        """Of how many of the teacher's most probable classes maps are needed."""
        return max(int(self.settings[name].get("classes", TERMS[name].map_classes)) for name in self.settings)

    def values(self, lesson: Lesson, group: Group) -> Tensor:
        """The unweighted terms, float32 `[terms]`, in float32 whatever the precision of the forward pass."""
        whole: Lesson | None = None
        values = []
        with torch.autocast(lesson.targets.device.type, enabled=False):
            for name, settings in self.settings.items():
                term = TERMS[name]
                if term.whole_batch and group.size > 1:
                    whole = whole or _of_all_processes(lesson, group)
                    values.append(term.compute(whole, **settings))
                else:
                    values.append(term.compute(lesson, **settings))
        return torch.stack(values)


def _of_all_processes(lesson: Lesson, group: Group) -> Lesson:
    """The logits of the whole batch, as the terms that compare images with each other need them."""
    return replace(
        lesson,
        student=replace(lesson.student, logits=group.gather(lesson.student.logits)),
        teacher=replace(lesson.taught, logits=group.gather(lesson.taught.logits)),
    )
