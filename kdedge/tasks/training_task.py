"""Interface of a task at training."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from kdedge.config.loss_spec import LossSpec

__all__ = ["TrainingTask"]


class TrainingTask(ABC):
    """Task at training."""

    @abstractmethod
    def targets(self, values: Tensor, outputs: int) -> Tensor:
        """Convert the ground truth of a dataset `[n]` to targets of the loss, float32 `[n, outputs]`."""

    def default_loss(self, recipe: LossSpec) -> LossSpec:
        """Return the loss of a run that requests none; that of its recipe by default."""
        return recipe

    @abstractmethod
    def metrics(self, logits: Tensor, values: Tensor) -> dict[str, float]:
        """Compute the validation metrics, with `loss` among them.

        Args:
            logits: float32 `[N, K]`.
            values: ground truth of the dataset, `[N]`.
        """

    @abstractmethod
    def merit(self, metrics: Mapping[str, float]) -> tuple[float, ...]:
        """Return the sort key of an epoch from its `val_` metrics; the largest is the best epoch."""
