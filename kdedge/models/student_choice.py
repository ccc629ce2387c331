"""Selection of a small student for a trained model."""

from collections.abc import Mapping

import torch
from torch import Tensor

from kdedge.models.resnet_layouts import RESNETS
from kdedge.models.small_resnet import SmallResNet

__all__ = ["smaller_student"]

_STUDENTS = ("resnet10w16", "resnet8")
"""Candidates from the largest to the smallest; other models are not smaller, or too deep to be fast."""
_TIMES_SMALLER = 2
"""Minimum reduction in size for a worthwhile student."""


def smaller_student(teacher: Mapping[str, Tensor], classes: int) -> str | None:
    """Return the largest student with at most half of the teacher's parameters, or None.

    Args:
        teacher: weights of the teacher, which suffice without executing a user's model file.
        classes: number of classes.
    """
    most = _numbers(teacher) / _TIMES_SMALLER
    with torch.device("meta"):
        sizes = {name: _numbers(SmallResNet(RESNETS[name], classes).state_dict()) for name in _STUDENTS}
    return next((name for name, numbers in sizes.items() if numbers <= most), None)


def _numbers(weights: Mapping[str, Tensor]) -> int:
    return sum(tensor.numel() for tensor in weights.values())
