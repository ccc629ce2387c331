"""Inputs of the loss terms for one batch."""

from dataclasses import dataclass

from torch import Tensor

__all__ = ["ModelOutput", "LossInputs"]


@dataclass(frozen=True)
class ModelOutput:
    """Outputs of a model on a batch."""

    logits: Tensor
    """Logits, float32 `[N, K]`."""
    classes: Tensor | None = None
    """Explained classes, int64 `[N, k]`; None, like the maps, if no maps were requested."""
    maps: Tensor | None = None
    """Raw signed saliency maps of those classes, float32 `[N, k, h, w]`."""
    features: tuple[Tensor, ...] = ()
    """Features of each compared layer, float32 `[N, C, h, w]`."""


@dataclass(frozen=True)
class LossInputs:
    """Outputs of student and teacher on a batch, with the targets."""

    student: ModelOutput
    teacher: ModelOutput | None
    """Teacher outputs, or None when training on labels only.

    The maps are those of its most probable classes, in that order; the student's maps are for the same classes.
    """
    targets: Tensor
    """Labels as class distributions, float32 `[N, K]`; mixed labels for mixed samples, zeros for unlabeled ones."""
    temperature: float
    """Softmax temperature for student and teacher distributions."""
    projected: tuple[Tensor, ...] = ()
    """Student features after the learned projections, `[N, C_teacher, h, w]` each; for terms with `projects`."""

    labeled_fraction: float = 1.0
    """Fraction of the training samples that have labels, over which terms with labels are averaged."""
    target_variance: float = 1.0
    """Variance of the targets of all training samples in a regression, to which squared errors are relative."""

    @property
    def teacher_output(self) -> ModelOutput:
        """Teacher outputs; terms that need them are rejected before training if there is no teacher."""
        assert self.teacher is not None
        return self.teacher
