"""Loss terms for distillation, as pure functions of a `LossInputs`; a run minimizes their weighted sum."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from kdedge.losses.all_class_maps import MOST_PROBABLE, all_class_maps_loss
from kdedge.losses.attention_transfer import attention_transfer_loss
from kdedge.losses.cat_kd import cat_kd_loss
from kdedge.losses.cosine import cosine_loss
from kdedge.losses.cross_entropy import cross_entropy_loss
from kdedge.losses.dist import dist_loss
from kdedge.losses.dkd import dkd_loss
from kdedge.losses.e2kd import e2kd_loss
from kdedge.losses.fitnets import fitnet_loss
from kdedge.losses.kd import kd_loss
from kdedge.losses.logit_standardization import logit_standardization_loss
from kdedge.losses.relative_squared_distillation import relative_squared_distillation_loss
from kdedge.losses.relative_squared_error import relative_squared_error_loss
from kdedge.losses.rkd import rkd_loss
from kdedge.losses.top_class_map import top_class_map_loss
from kdedge_runtime.util.plugin_registry import Registry

__all__ = ["ALL_CLASSES", "LOSS_TERMS", "LossTerm"]

ALL_CLASSES = 1 << 20
"""Stands for all classes: larger than any number of classes."""


@dataclass(frozen=True)
class LossTerm:
    """Loss term and its requirements."""

    compute: Callable[..., Tensor]
    """Function from a `LossInputs` and keyword settings to a scalar."""
    weight: float | None
    """Default weight; None if published weights span orders of magnitude, so that it is measured."""
    needs_teacher: bool = True
    """True if the term needs a teacher."""
    uses_temperature: bool = False
    """True if the term depends on the temperature."""
    map_classes: int = 0
    """Number of the teacher's most probable classes whose maps are compared; 0 for none."""
    features: bool = False
    """True if the term compares intermediate layers."""
    projects: bool = False
    """True if the term needs learned projections of the student's features."""
    pooled: bool = False
    """True if the features that the term compares are the pooled ones, or the embeddings of embedding networks."""
    same_size: bool = False
    """True if the compared features must have the same size."""
    whole_batch: bool = False
    """True if the term compares samples with each other.

    The logits and pooled features of all processes are gathered for it, not their targets, maps or spatial features.
    """

    @property
    def uses_logits_alone(self) -> bool:
        """True if the term compares neither maps nor intermediate layers."""
        return not self.map_classes and not self.features

    @property
    def settings(self) -> dict[str, float | int]:
        """Settings besides the weight, with their defaults."""
        parameters = list(inspect.signature(self.compute).parameters.values())[1:]
        return {parameter.name: parameter.default for parameter in parameters}


LOSS_TERMS: Registry[LossTerm] = Registry(
    "loss term",
    "kdedge.losses",
    loaded={
        "ce": LossTerm(cross_entropy_loss, 1.0, needs_teacher=False),
        "kd": LossTerm(kd_loss, 0.9, uses_temperature=True),
        "ls": LossTerm(logit_standardization_loss, 9.0),
        "dkd": LossTerm(dkd_loss, 1.0, uses_temperature=True),
        "dist": LossTerm(dist_loss, 2.0, uses_temperature=True, whole_batch=True),
        "rse": LossTerm(relative_squared_error_loss, 1.0, needs_teacher=False),
        "rsekd": LossTerm(relative_squared_distillation_loss, 0.9),
        "at": LossTerm(attention_transfer_loss, None, features=True),
        "hint": LossTerm(fitnet_loss, None, features=True, projects=True),
        "cosine": LossTerm(cosine_loss, 20.0, features=True, pooled=True, same_size=True),
        "rkd": LossTerm(rkd_loss, 20.0, features=True, pooled=True, whole_batch=True),
        "cat": LossTerm(cat_kd_loss, None, map_classes=ALL_CLASSES),
        "e2": LossTerm(e2kd_loss, 5.0, map_classes=1),
        "map": LossTerm(top_class_map_loss, 20.0, map_classes=1),
        "mapall": LossTerm(all_class_maps_loss, 20.0, uses_temperature=True, map_classes=MOST_PROBABLE),
    },
)
"""Terms of `--loss` by name; other packages add terms with an entry point of the group `kdedge.losses`."""
