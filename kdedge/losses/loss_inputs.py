"""What one batch teaches: everything that a loss term may look at."""

from dataclasses import dataclass

from torch import Tensor

__all__ = ["Answer", "Lesson"]


@dataclass(frozen=True)
class Answer:
    """What a model says of a batch, and why."""

    logits: Tensor
    """float32 `[N, K]`."""
    classes: Tensor | None = None
    """int64 `[N, k]`: the classes whose maps were taken; None, as are the maps, where none were asked for."""
    maps: Tensor | None = None
    """float32 `[N, k, h, w]`, raw and signed saliency maps of those classes."""
    features: tuple[Tensor, ...] = ()
    """float32 `[N, C, h, w]` of each layer that is compared."""


@dataclass(frozen=True)
class Lesson:
    """A batch as student and teacher see it."""

    student: Answer
    teacher: Answer | None
    """None when a model learns from labels alone. Its maps are those of its most probable classes, in their order, and
    the student's are of the same ones."""
    targets: Tensor
    """float32 `[N, K]`: the hard labels as distributions over the classes; mixed where pictures are mixed."""
    temperature: float
    """Softens both distributions of soft labels."""
    projected: tuple[Tensor, ...] = ()
    """The student's features after the learned projections, `[N, C_teacher, h, w]` each; for `hint` only."""

    @property
    def taught(self) -> Answer:
        """The teacher's answer; terms that need it are refused before training when there is no teacher."""
        assert self.teacher is not None
        return self.teacher
