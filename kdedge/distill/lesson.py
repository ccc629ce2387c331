"""What one batch teaches: everything that a loss term may look at."""

from dataclasses import dataclass

from torch import Tensor

from kdedge_export.saliency import ExplainedModel

__all__ = ["Lesson", "View"]


@dataclass(frozen=True)
class View:
    """A model's look at a batch."""

    model: ExplainedModel | None
    """None, as are the activations, for a model whose maps cannot be taken."""
    logits: Tensor
    """float32 `[N, K]`."""
    activations: Tensor | None
    """float32 `[N, C, h, w]` of the target layer."""

    def maps(self, classes: Tensor) -> Tensor:
        """Raw, signed saliency maps, float32 `[N, k, h, w]`, of classes int64 `[N, k]`."""
        assert self.model is not None and self.activations is not None, "map terms are refused before training"
        return self.model.class_maps(self.activations, classes)


@dataclass(frozen=True)
class Lesson:
    """A batch as student and teacher see it."""

    student: View
    teacher: View | None
    """None when a model learns from labels alone."""
    targets: Tensor
    """int64 `[N]`, the hard labels."""
    temperature: float
    """Softens both distributions of soft labels."""

    @property
    def taught(self) -> View:
        """The teacher's view; terms that need it are refused before training when there is no teacher."""
        assert self.teacher is not None
        return self.teacher
