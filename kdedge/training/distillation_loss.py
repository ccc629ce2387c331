"""Distillation loss for training loops of your own."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdedge.config.loss_spec import parse_loss
from kdedge.losses import LOSS_TERMS
from kdedge.losses.loss_inputs import LossInputs, ModelOutput
from kdedge.tasks import TRAINING_TASKS
from kdedge.training.distributed import ProcessGroup
from kdedge.training.instrumented_model import explained_output
from kdedge.training.objective import make_objective
from kdedge_export.errors import HeadNotSupported
from kdedge_export.saliency import ExplainedModel, make_explained
from kdedge_export.saliency.tracing import evaluating
from kdedge_runtime.errors import UsageError

__all__ = ["DistillationLoss", "DistillationOutput"]


@dataclass(frozen=True)
class DistillationOutput:
    """Loss of a batch, with the student's logits."""

    loss: Tensor
    """Weighted sum of the terms, float32 scalar with a gradient."""
    terms: dict[str, Tensor]
    """Unweighted value of each term, float32 scalars without a gradient."""
    logits: Tensor
    """The student's logits, float32 `[N, K]`."""


class DistillationLoss:
    """Weighted sum of loss terms between a student and a frozen teacher, for training loops of your own.

    Both are PyTorch classifiers in one process, float `[N, C, H, W]` to logits `[N, K]`, with the same classes. The
    maps are those that `kdedge_export.export` writes into the model file.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        example: Tensor,
        loss: str = "ce:0.1,kd:0.9,mapall:20",
        *,
        temperature: float = 4.0,
    ) -> None:
        """Prepare both models; the teacher is set to evaluation mode and frozen.

        Args:
            student: the student, on the device of the example. Only its hooks change; `train` and `eval` are left to
                the loop.
            teacher: the trained teacher, on the same device.
            example: input of both, normalized, float `[1, C, H, W]`.
            loss: terms of predictions and maps with their weights, as in `kdedge distill --loss`.
            temperature: softmax temperature of the distillation terms, above 0.

        Raises:
            UsageError: the loss is invalid or compares layers, a weight is missing, the models have different
                classes, or one of them has no maps.
        """
        spec = parse_loss(loss)
        unfit = [name for name in spec.weights if LOSS_TERMS[name].features]
        unfit += [name for name in TRAINING_TASKS["regression"].unfit_terms.values() if name in spec.weights]
        if unfit:
            raise UsageError(
                f"DistillationLoss compares predictions of classes and maps, but the loss {loss!r} has {unfit[0]}. "
                "Remove the term, or use kdedge.distill."
            )
        if unweighted := [name for name, weight in spec.weights.items() if weight is None]:
            raise UsageError(f"The term {unweighted[0]} has no default weight. Expected one: {unweighted[0]}:WEIGHT.")
        if not temperature > 0:
            raise UsageError(f"The temperature {temperature:g} is not supported. Expected a number above 0.")
        self._objective, self._temperature = make_objective(spec.weights, spec.settings), temperature
        self._weights = torch.tensor([*spec.weights.values()], dtype=torch.float32, device=example.device)
        self._labeled = [name for name in spec.weights if not LOSS_TERMS[name].needs_teacher]
        self._student = self._prepared(student, example, "student")
        self._teacher = self._prepared(teacher.eval().requires_grad_(False), example, "teacher")
        with torch.no_grad(), evaluating(student):
            ours, theirs = (model(example).shape for model in (student, teacher))
        if ours != theirs:
            raise UsageError(
                f"The student has logits of shape {tuple(ours)} and the teacher of {tuple(theirs)}. Expected the same "
                "classes in the same order."
            )

    def __call__(self, samples: Tensor, targets: Tensor | None = None) -> DistillationOutput:
        """Run both models on a batch and compute the loss.

        Args:
            samples: normalized samples, float `[N, C, H, W]`.
            targets: classes, int64 `[N]`, or their distributions, float `[N, K]`; None for a loss without labels.

        Raises:
            UsageError: a term needs labels, but there are none.
        """
        if targets is None and self._labeled:
            raise UsageError(
                f"The term {self._labeled[0]} needs labels, but there are no targets. Pass them, or remove the term."
            )
        with torch.no_grad():
            teacher = _output(self._teacher, samples, self._objective.map_classes)
        wanted = 0 if teacher.classes is None else teacher.classes
        student = _output(self._student, samples, wanted)
        distributions = _distributions(targets, student.logits)
        inputs = LossInputs(student, teacher, distributions, self._temperature)
        values = self._objective.values(inputs, ProcessGroup())
        terms = dict(zip(self._objective.settings, values.detach(), strict=True))
        return DistillationOutput((values * self._weights).sum(), terms, student.logits)

    def _prepared(self, model: nn.Module, example: Tensor, role: str) -> nn.Module:
        """Return the model, with maps if a term compares them."""
        if not self._objective.map_terms:
            return model
        try:
            return make_explained(model, example)
        except HeadNotSupported as error:
            raise UsageError(
                f"The term {self._objective.map_terms[0]} compares saliency maps, but the {role} has none: {error}"
            ) from error


def _output(model: nn.Module, samples: Tensor, wanted: int | Tensor) -> ModelOutput:
    if isinstance(model, ExplainedModel):
        return explained_output(model, samples, wanted)
    return ModelOutput(model(samples).float())


def _distributions(targets: Tensor | None, logits: Tensor) -> Tensor:
    """Return targets as class distributions, float32 `[N, K]`; zeros without labels."""
    if targets is None:
        return torch.zeros_like(logits)
    return targets.float() if targets.is_floating_point() else F.one_hot(targets, logits.shape[1]).float()
