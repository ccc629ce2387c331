"""Selection of a small student for a trained model."""

from collections.abc import Mapping

import torch
from torch import Tensor

from kdedge.modalities import TRAINING_MODALITIES
from kdedge.models.model_spec import ModelSpec
from kdedge_runtime.modalities import InputSpec

__all__ = ["smaller_student"]

_TIMES_SMALLER = 2
"""Minimum reduction in size for a worthwhile student."""


def smaller_student(teacher: Mapping[str, Tensor], classes: int, spec: InputSpec) -> str | None:
    """Return the modality's largest student with at most half of the teacher's parameters, or None.

    Args:
        teacher: weights of the teacher, which suffice without executing a user's model file.
        classes: number of classes.
        spec: input of the teacher.
    """
    most = _numbers(teacher) / _TIMES_SMALLER
    modality = TRAINING_MODALITIES[spec.kind]
    with torch.device("meta"):
        sizes = {
            name: _numbers(modality.build_model(ModelSpec(name, classes), spec).state_dict())
            for name in modality.students
        }
    return next((name.removeprefix("small:") for name, numbers in sizes.items() if numbers <= most), None)


def _numbers(weights: Mapping[str, Tensor]) -> int:
    return sum(tensor.numel() for tensor in weights.values())
