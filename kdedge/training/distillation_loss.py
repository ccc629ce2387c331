"""Distillation loss for training loops of your own."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdedge.config.loss_spec import parse_loss
from kdedge.losses import LOSS_TERMS
from kdedge.losses.loss_inputs import LossInputs, ModelOutput
from kdedge.training.distributed import ProcessGroup
from kdedge.training.instrumented_model import explained_output
from kdedge.training.objective import make_objective
from kdedge_export.errors import HeadNotSupported
from kdedge_export.saliency import ExplainedModel, make_explained
from kdedge_export.saliency.tracing import evaluating
from kdedge_runtime.errors import UsageError

__all__ = ["DistillationLoss", "DistillationOutput"]


@dataclass(frozen=True, eq=False)
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
        """Prepare both models and freeze the teacher, which is always run in evaluation mode.

        Args:
            student: the student, on the device of the example. Its mode is left to the loop.
            teacher: the trained teacher, on the same device.
            example: input of both, normalized, float `[1, C, H, W]`.
            loss: terms of predictions and maps with their weights, as in `kdedge distill --loss`.
            temperature: softmax temperature of the distillation terms, above 0.

        Raises:
            UsageError: the loss is invalid or compares layers, a weight is missing, the models share parameters or have
                different classes, or one of them has no maps.
        """
        spec = parse_loss(loss)
        if unfit := [name for name in spec.weights if LOSS_TERMS[name].features or LOSS_TERMS[name].of_values]:
            raise UsageError(
                f"DistillationLoss compares predictions of classes and maps, but the loss {loss!r} has {unfit[0]}. "
                "Remove the term, or use kdedge.distill."
            )
        if unweighted := [name for name, weight in spec.weights.items() if weight is None]:
            raise UsageError(f"The term {unweighted[0]} has no default weight. Expected one: {unweighted[0]}:WEIGHT.")
        if not 0 < temperature < math.inf:
            raise UsageError(f"The temperature {temperature:g} is not supported. Expected a finite number above 0.")
        if not set(student.parameters()).isdisjoint(teacher.parameters()):
            raise UsageError("Student and teacher share parameters. Expected two models, or a copy of one.")
        self._objective, self._temperature = make_objective(spec.weights, spec.settings), temperature
        self._weights = torch.tensor([*spec.weights.values()], dtype=torch.float32, device=example.device)
        self._labeled = [name for name in spec.weights if not LOSS_TERMS[name].needs_teacher]
        self._student = self._prepared(student, example, "student")
        self._teacher = self._prepared(teacher, example, "teacher")
        with torch.no_grad(), evaluating(student), evaluating(teacher):
            ours, theirs = (model(example).shape for model in (student, teacher))
        if ours != theirs:
            raise UsageError(
                f"The student has logits of shape {tuple(ours)} and the teacher of {tuple(theirs)}. Expected the same "
                "classes in the same order."
            )
        teacher.requires_grad_(False)

    def __call__(self, samples: Tensor, targets: Tensor | None = None) -> DistillationOutput:
        """Run both models on a batch and compute the loss.

        Args:
            samples: normalized samples, float `[N, C, H, W]`.
            targets: classes, integers `[N]`, or their distributions, float `[N, K]`; None for a loss without labels.

        Raises:
            UsageError: a term needs labels but there are none, the targets have another shape, or the student returns
                more than logits.
        """
        if targets is None and self._labeled:
            raise UsageError(
                f"The term {self._labeled[0]} needs labels, but there are no targets. Pass them, or remove the term."
            )
        self._teacher.eval()  # a loop may have changed it, such as with its student in one module
        with torch.no_grad(), _attached(self._teacher):
            teacher = _output(self._teacher, samples, self._objective.map_classes)
        with _attached(self._student):
            student = _output(self._student, samples, 0 if teacher.classes is None else teacher.classes)
        inputs = LossInputs(student, teacher, _distributions(targets, student.logits), self._temperature)
        values = self._objective.values(inputs, ProcessGroup())
        terms = dict(zip(self._objective.settings, values.detach(), strict=True))
        return DistillationOutput((values * self._weights).sum(), terms, student.logits)

    def _prepared(self, model: nn.Module, example: Tensor, role: str) -> nn.Module:
        """Return the model, with maps if a term compares them."""
        if not self._objective.map_terms:
            return model
        try:
            explained = make_explained(model, example)
        except HeadNotSupported as error:
            raise UsageError(
                f"The term {self._objective.map_terms[0]} compares saliency maps, but the {role} has none: {error}"
            ) from error
        explained.detach()
        return explained


@contextmanager
def _attached(model: nn.Module) -> Iterator[None]:
    """Register the hooks of a model for one forward pass, so that it can be copied and saved in between."""
    if not isinstance(model, ExplainedModel):
        yield
        return
    model.attach()
    try:
        yield
    finally:
        model.detach()


def _output(model: nn.Module, samples: Tensor, wanted: int | Tensor) -> ModelOutput:
    if isinstance(model, ExplainedModel):
        return explained_output(model, samples, wanted)
    return ModelOutput(model(samples).float())


def _distributions(targets: Tensor | None, logits: Tensor) -> Tensor:
    """Return targets as class distributions, float32 `[N, K]`; zeros without labels."""
    if targets is None:
        return torch.zeros_like(logits)
    count, classes = logits.shape
    is_integer = not targets.is_floating_point() and targets.dtype != torch.bool
    if targets.shape != ((count,) if is_integer else (count, classes)):
        raise UsageError(
            f"The targets have shape {tuple(targets.shape)} and type {targets.dtype}. Expected integer classes "
            f"[{count}], or distributions, float [{count}, {classes}]."
        )
    if not is_integer:
        return targets.float()
    try:
        return F.one_hot(targets.long(), classes).float()
    except RuntimeError as error:
        raise UsageError(f"A target is no class. Expected numbers from 0 to {classes - 1}.") from error
