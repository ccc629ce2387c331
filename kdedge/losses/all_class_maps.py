"""Look where the teacher looks: the centred, unrectified maps of all classes that it thinks of."""

from torch import Tensor

from kdedge.losses.loss_inputs import Lesson
from kdedge.losses.map_distance import disagreement

__all__ = ["MOST_PROBABLE", "all_class_maps"]

MOST_PROBABLE = 32
"""Number of the teacher's classes that are compared. Four give less accuracy than 22 (tests/benchmarks/README.md)."""


def all_class_maps(lesson: Lesson, *, classes: int = MOST_PROBABLE) -> Tensor:
    """`sum_c p_T(c) (1 - Pearson(M_S^c, M_T^c))` over the teacher's most probable classes, mean over the batch.

    The probabilities are the teacher's at the run's temperature, renormalised over those classes.

    Shapes: logits `[N, K]`, classes `[N, k]`, maps of both `[N, k, h, w]` and `[N, k, h', w']`, in the order of the
    teacher's probabilities; the larger is averaged down.

    Source: this project; see `disagreement`.

    Default weight: 20. Weights up to 200 give about the same, 5 gives less (tests/benchmarks/README.md).

    Args:
        lesson: the batch.
        classes: how many classes to compare, by default 32; all of them where there are fewer.
    """
    distances = disagreement(lesson, classes)
    assert lesson.taught.classes is not None
    top = lesson.taught.logits.gather(1, lesson.taught.classes[:, :classes])
    return ((top / lesson.temperature).softmax(dim=1) * distances).sum(dim=1).mean()
