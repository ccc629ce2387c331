"""Classification into exactly one of K classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from kdedge.tasks.training_task import TrainingTask

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["CLASSIFICATION", "ClassificationTraining"]

_ABOUT_CHANCE = 1.5
"""Factor of chance accuracy below which a teacher's classes may be in another order."""
_NOT_CHANCE = 0.6
"""Accuracy that is never called chance, as for two classes of different frequency."""


class ClassificationTraining(TrainingTask):
    """Targets are class indices; the best epoch has the highest accuracy."""

    accepts_unlabeled = True

    def targets(self, values: Tensor, outputs: int) -> Tensor:
        """Return one-hot vectors, and zeros for unlabeled samples."""
        from torch.nn import functional as F

        return F.one_hot(values.clamp_min(0), outputs).float() * (values >= 0)[:, None]

    def confidence(self, logits: Tensor) -> Tensor | None:
        """Return the largest probability of the softmax."""
        return logits.softmax(dim=1).amax(dim=1)

    def metrics(self, logits: Tensor, values: Tensor) -> dict[str, float]:
        """Compute `top1` in [0, 1] and `loss`, the cross-entropy."""
        from torch.nn import functional as F

        top1 = float((logits.argmax(dim=1) == values).float().mean())
        return {"top1": top1, "loss": float(F.cross_entropy(logits, values))}

    def mean(self, logits: Sequence[Tensor]) -> Tensor:
        """Return logits whose softmax is the mean of the softmaxes."""
        import torch
        from torch.nn import functional as F

        together = torch.stack([F.log_softmax(one, dim=1) for one in logits])
        return together.logsumexp(dim=0) - torch.log(torch.tensor(float(len(logits)), device=together.device))

    def summary(self, metrics: Mapping[str, float], labels: Sequence[str]) -> str:
        """Return the accuracy in percent."""
        return f"{metrics['top1']:.1%} top-1"

    def teacher_warning(self, metrics: Mapping[str, float], labels: Sequence[str], *, is_named: bool) -> str | None:
        """Return a warning about an accuracy at chance level; see `TrainingTask`."""
        top1 = metrics["top1"]
        if top1 >= min(_ABOUT_CHANCE / len(labels), _NOT_CHANCE):
            return None
        advice = f"Check that its classes are in the order of the data ({', '.join(labels[:3])}, …)."
        if is_named:
            advice = (
                "Its classes are those of the data, so it was trained too little, or on samples unlike these. Train it "
                "longer, or on these samples."
            )
        return f"The teacher's top-1 is {top1:.1%} on the validation samples, about chance. {advice}"

    def merit(self, metrics: Mapping[str, float]) -> tuple[float, ...]:
        """Return accuracy, then agreement, maps and loss, since small sets often tie; without labels agreement."""
        figures = tuple(metrics.get(name, 0.0) for name in ("val_top1", "val_agreement", "val_map_pearson"))
        return (*figures, -metrics.get("val_loss", 0.0))


CLASSIFICATION = ClassificationTraining()
