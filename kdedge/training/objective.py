"""Weighted sum of loss terms."""

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
    """Loss terms with their settings."""

    settings: Mapping[str, Mapping[str, float | int]]
    """Mapping from term name to settings; missing settings have their defaults."""

    @property
    def _terms(self) -> list[Term]:
        return [TERMS[name] for name in self.settings]

    @property
    def taught(self) -> bool:
        """True if any term needs a teacher."""
        return any(term.taught for term in self._terms)

    @property
    def compares_layers(self) -> bool:
        """True if any term compares intermediate layers."""
        return any(term.features for term in self._terms)

    @property
    def map_terms(self) -> list[str]:
        """Names of the terms that compare saliency maps."""
        return [name for name in self.settings if TERMS[name].map_classes]

    @property
    def map_classes(self) -> int:
        """Number of the teacher's most probable classes whose maps are needed."""
        return max(int(self.settings[name].get("classes", TERMS[name].map_classes)) for name in self.settings)

    def values(self, lesson: Lesson, group: Group) -> Tensor:
        """Compute the unweighted terms, float32 `[terms]`, in float32 even under autocast."""
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
    """Gather the logits of the whole batch for terms that compare images with each other."""
    return replace(
        lesson,
        student=replace(lesson.student, logits=group.gather(lesson.student.logits)),
        teacher=replace(lesson.taught, logits=group.gather(lesson.taught.logits)),
    )
