"""Which of the small networks to distill a trained one into."""

from collections.abc import Mapping

import torch
from torch import Tensor

from kdedge.models.resnet_layouts import RESNETS
from kdedge.models.small_resnet import SmallResNet

__all__ = ["smaller_student"]

_STUDENTS = ("resnet10w16", "resnet8")
"""From the largest to the smallest; the others are no smaller, or too deep to be fast."""
_TIMES_SMALLER = 2
"""A student that saves less is hardly worth its training."""


def smaller_student(teacher: Mapping[str, Tensor], classes: int) -> str | None:
    """The name of the largest student with at most half of the teacher's numbers; None where there is none.

    Args:
        teacher: its weights: of a network of the user's own nothing else is known without running his file.
        classes: how many both tell apart.
    """
    most = _numbers(teacher) / _TIMES_SMALLER
    with torch.device("meta"):
        sizes = {name: _numbers(SmallResNet(RESNETS[name], classes).state_dict()) for name in _STUDENTS}
    return next((name for name, numbers in sizes.items() if numbers <= most), None)


def _numbers(weights: Mapping[str, Tensor]) -> int:
    return sum(tensor.numel() for tensor in weights.values())
