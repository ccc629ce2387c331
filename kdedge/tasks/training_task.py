"""Interface of a task at training."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from kdedge.config.loss_spec import LossSpec

__all__ = ["TrainingTask"]


class TrainingTask(ABC):
    """Task at training."""

    accepts_unlabeled = False
    """True if `targets` returns a row of zeros for the value `UNLABELED`, so that label terms ignore the sample."""

    unfit_terms: Mapping[str, str] = {}
    """Loss terms that compare something else, each with the term in its place."""

    @abstractmethod
    def targets(self, values: Tensor, outputs: int) -> Tensor:
        """Convert the ground truth of a dataset `[n]` to targets of the loss, float32 `[n, outputs]`."""

    def confidence(self, logits: Tensor) -> Tensor | None:
        """Return the probability of each prediction, `[n]`; None if the task has none, the default."""
        return None

    def default_loss(self, recipe: LossSpec) -> LossSpec:
        """Return the loss of a run with a shipped recipe that requests none; that of the recipe by default."""
        return recipe

    @abstractmethod
    def metrics(self, logits: Tensor, values: Tensor) -> dict[str, float]:
        """Compute the validation metrics, with `loss` among them.

        Args:
            logits: float32 `[N, K]`.
            values: ground truth of the dataset, `[N]`.
        """

    def mean(self, logits: Sequence[Tensor]) -> Tensor:
        """Average the logits `[N, K]` of an ensemble; their mean by default."""
        import torch

        return torch.stack(list(logits)).mean(dim=0)

    def unit(self, labels: Sequence[str]) -> str | None:
        """Return the unit of the ground truth and of the metric `mae`, such as `kW`; None without one, the default.

        Args:
            labels: labels of the data.
        """
        return None

    def summary(self, metrics: Mapping[str, float], labels: Sequence[str]) -> str:
        """Describe the metrics of a teacher in the plan; its loss by default.

        Args:
            metrics: metrics of the teacher on the validation samples.
            labels: labels of the data.
        """
        return f"loss {metrics['loss']:.3f}"

    def teacher_warning(self, metrics: Mapping[str, float], labels: Sequence[str], *, is_named: bool) -> str | None:
        """Return a warning about a teacher that seems wrong for the data; None by default.

        Args:
            metrics: metrics of the teacher on the validation samples.
            labels: classes of the data.
            is_named: True if the teacher has class names, which are then those of the data in their order.
        """
        return None

    @abstractmethod
    def merit(self, metrics: Mapping[str, float]) -> tuple[float, ...]:
        """Return the sort key of an epoch from its `val_` metrics; the largest is the best epoch."""
