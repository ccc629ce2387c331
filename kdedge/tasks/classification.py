"""Classification into exactly one of K classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from kdedge.tasks.training_task import TrainingTask

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["CLASSIFICATION", "ClassificationTraining"]


class ClassificationTraining(TrainingTask):
    """Targets are class indices; the best epoch has the highest accuracy."""

    def targets(self, values: Tensor, outputs: int) -> Tensor:
        """Return one-hot vectors."""
        from torch.nn import functional as F

        return F.one_hot(values, outputs).float()

    def metrics(self, logits: Tensor, values: Tensor) -> dict[str, float]:
        """Compute `top1` in [0, 1] and `loss`, the cross-entropy."""
        from torch.nn import functional as F

        top1 = float((logits.argmax(dim=1) == values).float().mean())
        return {"top1": top1, "loss": float(F.cross_entropy(logits, values))}

    def merit(self, metrics: Mapping[str, float]) -> tuple[float, ...]:
        """Return accuracy, then agreement, maps and loss, since small sets often tie."""
        figures = tuple(metrics.get(name, 0.0) for name in ("val_top1", "val_agreement", "val_map_pearson"))
        return (*figures, -metrics["val_loss"])


CLASSIFICATION = ClassificationTraining()
