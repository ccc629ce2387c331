"""Loss term with its default weight and requirements."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ALL_CLASSES", "LossTerm"]

ALL_CLASSES = 1 << 20
"""Stands for all classes: larger than any number of classes."""


@dataclass(frozen=True)
class LossTerm:
    """Loss term and its requirements."""

    compute: Callable[..., "Tensor"]
    """Function from a `LossInputs` and keyword settings to a scalar."""
    weight: float | None
    """Default weight; None if published weights span orders of magnitude, so that it is measured."""
    needs_teacher: bool = True
    """True if the term needs a teacher."""
    uses_temperature: bool = False
    """True if the term depends on the temperature."""
    map_classes: int = 0
    """Number of the teacher's most probable classes whose maps are compared; 0 for none."""
    of_values: bool = False
    """True if the term compares values of a regression, not classes."""
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
