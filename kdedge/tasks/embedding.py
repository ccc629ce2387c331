"""Embedding: samples of a class have similar directions, also those of classes that the model never saw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from kdedge.tasks.classification import ClassificationTraining

if TYPE_CHECKING:
    from torch import Tensor

    from kdedge.config.loss_spec import LossSpec

__all__ = ["EMBEDDING", "EmbeddingTraining"]


class EmbeddingTraining(ClassificationTraining):
    """Logits are cosine similarities to the class means of the teacher; the best epoch has the highest accuracy.

    The teacher provides all targets, so that labels are needed for its class means and the metrics only.
    """

    def confidence(self, logits: Tensor) -> Tensor | None:
        """Return None: similarities are not probabilities."""
        return None

    def default_loss(self, recipe: LossSpec) -> LossSpec:
        """Return the terms of embeddings and of maps; see `.github/docs/benchmarks/embeddings.md`."""
        from kdedge.config.loss_spec import parse_loss

        return parse_loss("cosine,rkd,mapall")

    def metrics(self, logits: Tensor, values: Tensor) -> dict[str, float]:
        """Compute `top1` in [0, 1] and `loss`, the cross-entropy of the similarities at the temperature of exports."""
        from kdedge_export.tasks.embedding import SOFTMAX_TEMPERATURE

        return super().metrics(logits / SOFTMAX_TEMPERATURE, values)

    def teacher_warning(self, metrics: Mapping[str, float], labels: Sequence[str], *, is_named: bool) -> str | None:
        """Return None: the class means of the teacher are fitted on these classes."""
        return None

    def summary(self, metrics: Mapping[str, float], labels: Sequence[str]) -> str:
        """Return the accuracy of the nearest class mean in percent."""
        return f"{metrics['top1']:.1%} nearest class mean"


EMBEDDING = EmbeddingTraining()
