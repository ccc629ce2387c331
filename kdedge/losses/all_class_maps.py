"""Saliency-map loss: correlation of centered, unrectified maps of the teacher's most probable classes."""

from torch import Tensor

from kdedge.losses.loss_inputs import LossInputs
from kdedge.losses.loss_term import LossTerm
from kdedge.losses.map_distance import saliency_distance

__all__ = ["TERM", "MOST_PROBABLE", "all_class_maps_loss"]

MOST_PROBABLE = 32
"""Default number of classes to compare. Four give lower accuracy than 22 (.github/docs/benchmarks/distillation.md)."""


def all_class_maps_loss(inputs: LossInputs, *, classes: int = MOST_PROBABLE) -> Tensor:
    """Compute `sum_c p_T(c) (1 - Pearson(M_S^c, M_T^c))` over the teacher's most probable classes, mean over the batch.

    The probabilities are the teacher's at the run's temperature, renormalized over those classes.

    Shapes: logits `[N, K]`, classes `[N, k]`, maps `[N, k, h, w]` and `[N, k, h', w']`, in the order of the teacher's
    probabilities; the larger is average-pooled.
    Source: this project; see `disagreement`.
    Default weight: 20. Weights up to 200 give about the same result, 5 a lower one.

    Args:
        inputs: loss inputs of the batch.
        classes: number of classes to compare, default 32; all if there are fewer.
    """
    distances = saliency_distance(inputs, classes)
    assert inputs.teacher_output.classes is not None
    top = inputs.teacher_output.logits.gather(1, inputs.teacher_output.classes[:, :classes])
    return ((top / inputs.temperature).softmax(dim=1) * distances).sum(dim=1).mean()


TERM = LossTerm(all_class_maps_loss, 20.0, uses_temperature=True, map_classes=MOST_PROBABLE)
"""Term `mapall` of `--loss`."""
