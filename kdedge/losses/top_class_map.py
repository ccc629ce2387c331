"""Saliency-map loss: correlation of centered, unrectified maps of the teacher's top class."""

from torch import Tensor

from kdedge.losses.loss_inputs import LossInputs
from kdedge.losses.loss_term import LossTerm
from kdedge.losses.map_distance import saliency_distance

__all__ = ["TERM", "top_class_map_loss"]


def top_class_map_loss(inputs: LossInputs) -> Tensor:
    """Compute `1 - Pearson(M_S, M_T)` of the maps of the teacher's top class, mean over the batch.

    Shapes: maps `[N, k, h, w]` and `[N, k, h', w']`, the teacher's top class first; the larger is average-pooled.
    Source: this project; see `disagreement`.
    Default weight: 20, as for `mapall`.
    """
    return saliency_distance(inputs, 1)[:, 0].mean()


TERM = LossTerm(top_class_map_loss, 20.0, map_classes=1)
"""Term `map` of `--loss`."""
