"""Weighted sum of loss terms."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kdedge.losses import LOSS_TERMS, LossTerm
from kdedge.losses.loss_inputs import LossInputs, ModelOutput
from kdedge.training.distributed import ProcessGroup

__all__ = ["Objective", "make_objective", "uses_predictions"]


@dataclass(frozen=True)
class Objective:
    """Loss terms with their settings, without their weights."""

    settings: Mapping[str, Mapping[str, float | int]]
    """Mapping from term name to settings; missing settings have their defaults."""

    @property
    def text(self) -> str:
        """Names of the terms in the syntax of `--loss`, such as `ce,kd`."""
        return ",".join(self.settings)

    @property
    def _terms(self) -> list[LossTerm]:
        return [LOSS_TERMS[name] for name in self.settings]

    @property
    def uses_teacher(self) -> bool:
        """True if any term needs a teacher."""
        return any(term.needs_teacher for term in self._terms)

    @property
    def compares_layers(self) -> bool:
        """True if any term compares intermediate layers."""
        return any(term.features for term in self._terms)

    @property
    def map_terms(self) -> list[str]:
        """Names of the terms that compare saliency maps."""
        return [name for name in self.settings if LOSS_TERMS[name].map_classes]

    @property
    def map_classes(self) -> int:
        """Number of the teacher's most probable classes whose maps are needed."""
        return max(int(self.settings[name].get("classes", LOSS_TERMS[name].map_classes)) for name in self.settings)

    def values(self, inputs: LossInputs, group: ProcessGroup) -> Tensor:
        """Compute the unweighted terms, float32 `[terms]`, in float32 even under autocast."""
        whole: LossInputs | None = None
        values = []
        with torch.autocast(inputs.targets.device.type, enabled=False):
            for name, settings in self.settings.items():
                term = LOSS_TERMS[name]
                if term.whole_batch and group.size > 1:
                    whole = whole or _of_all_processes(inputs, group)
                    values.append(term.compute(whole, **settings))
                else:
                    values.append(term.compute(inputs, **settings))
        return torch.stack(values)


def uses_predictions(terms: Iterable[str]) -> bool:
    """Return True if any term compares predictions or maps, for which the teacher needs the classes of the data."""
    return any(LOSS_TERMS[name].needs_teacher and not LOSS_TERMS[name].features for name in terms)


def make_objective(terms: Iterable[str], settings: Mapping[str, Mapping[str, float | int]]) -> Objective:
    """Return loss terms with their settings."""
    return Objective({name: settings.get(name, {}) for name in terms})


def _of_all_processes(inputs: LossInputs, group: ProcessGroup) -> LossInputs:
    """Gather the logits and pooled features of the whole batch for terms that compare samples with each other."""

    def gathered(output: ModelOutput) -> ModelOutput:
        pooled = (feature for feature in output.features if feature.shape[2:] == (1, 1))
        return replace(output, logits=group.gather(output.logits), features=tuple(map(group.gather, pooled)))

    return replace(inputs, student=gathered(inputs.student), teacher=gathered(inputs.teacher_output))
