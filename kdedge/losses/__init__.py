"""Loss terms for distillation, as pure functions of a `Lesson`; a run minimizes their weighted sum."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from kdedge.losses.all_class_maps import MOST_PROBABLE, all_class_maps
from kdedge.losses.attention_transfer import attention_transfer
from kdedge.losses.cat_kd import class_attention_transfer
from kdedge.losses.cross_entropy import cross_entropy
from kdedge.losses.dist import relations
from kdedge.losses.dkd import decoupled_soft_labels
from kdedge.losses.e2kd import rectified_map
from kdedge.losses.fitnets import hints
from kdedge.losses.kd import soft_labels
from kdedge.losses.logit_standardization import standardised_soft_labels
from kdedge.losses.top_class_map import top_class_map

__all__ = ["ALL_CLASSES", "TERMS", "Term"]

ALL_CLASSES = 1 << 20
"""Stands for all classes: larger than any number of classes."""


@dataclass(frozen=True)
class Term:
    """Loss term and its requirements."""

    compute: Callable[..., Tensor]
    """Function from a `Lesson` and keyword settings to a scalar."""
    weight: float | None
    """Default weight; None if published weights span orders of magnitude, so that it is measured."""
    taught: bool = True
    """True if the term needs a teacher."""
    softened: bool = False
    """True if the term depends on the temperature."""
    map_classes: int = 0
    """Number of the teacher's most probable classes whose maps are compared; 0 for none."""
    features: bool = False
    """True if the term compares intermediate layers."""
    whole_batch: bool = False
    """True if the term compares images with each other and needs the batches of all processes."""

    @property
    def settings(self) -> dict[str, float | int]:
        """Settings besides the weight, with their defaults."""
        parameters = list(inspect.signature(self.compute).parameters.values())[1:]
        return {parameter.name: parameter.default for parameter in parameters}


TERMS: dict[str, Term] = {
    "ce": Term(cross_entropy, 1.0, taught=False),
    "kd": Term(soft_labels, 0.9, softened=True),
    "ls": Term(standardised_soft_labels, 9.0),
    "dkd": Term(decoupled_soft_labels, 1.0, softened=True),
    "dist": Term(relations, 2.0, softened=True, whole_batch=True),
    "at": Term(attention_transfer, None, features=True),
    "hint": Term(hints, None, features=True),
    "cat": Term(class_attention_transfer, None, map_classes=ALL_CLASSES),
    "e2": Term(rectified_map, 5.0, map_classes=1),
    "map": Term(top_class_map, 20.0, map_classes=1),
    "mapall": Term(all_class_maps, 20.0, softened=True, map_classes=MOST_PROBABLE),
}
"""Mapping from term names of `--loss` to terms."""
