"""Start a student from a selection of its teacher's weights instead of from random ones.

Weight selection of Xu et al., Initializing Models with Larger Ones, ICLR 2024 (§3.2): of every tensor that both have,
along every dimension, evenly spaced elements. Which ones depends only on the two sizes, so that the channels that one
layer gives are those that the next layer takes. Layers are found by their names, which gives the first layers of each
stage. The authors take the first element of each of `n` equal parts, here it is the middle one: channels are as good as
one another, and a smaller convolution kernel stays centred.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kdedge_runtime.errors import UsageError

__all__ = ["Inherited", "inherit", "select"]

_Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d


@dataclass(frozen=True)
class Inherited:
    """Which of a student's weights and statistics are its teacher's; scalars such as batch counters are left out."""

    names: tuple[str, ...]
    """Of the tensors that were copied."""
    kept: tuple[str, ...]
    """Of those that kept their random start."""

    @property
    def copied(self) -> int:
        """Number of tensors that were copied."""
        return len(self.names)

    @property
    def total(self) -> int:
        """Number of the student's tensors."""
        return len(self.names) + len(self.kept)


def inherit(student: nn.Module, teacher: nn.Module) -> Inherited:
    """Give a student a selection of its teacher's weights and batch statistics, in place.

    A tensor keeps its random start when the teacher has none of its name, or has one that is smaller along some
    dimension. Both should know the same classes in the same order: with fewer, the student would get the answers to
    other classes.

    Raises:
        UsageError: there is nothing that could be copied.
    """
    source = teacher.state_dict()
    names: list[str] = []
    kept: list[str] = []
    for name, value in student.state_dict().items():  # the module's own memory
        fits = name in source and _is_within(value, source[name]) and _same_grouping(name, student, teacher)
        if fits:
            value.copy_(select(source[name], value.shape))
        if value.ndim > 0:
            (names if fits else kept).append(name)
    if not names:
        raise UsageError(
            f"{type(student).__name__} can inherit nothing from {type(teacher).__name__}: no layer of the same name is "
            "at least as large there. Choose a student of the teacher's family, such as resnet18 for resnet34, or "
            "leave --init out."
        )
    return Inherited(tuple(names), tuple(kept))


def select(tensor: Tensor, shape: torch.Size) -> Tensor:
    """Evenly spaced elements along every dimension.

    Args:
        tensor: of any type.
        shape: of the result; no dimension larger than the tensor's.
    """
    for dim, size in enumerate(shape):
        if size != tensor.shape[dim]:
            middles = (2 * torch.arange(size, device=tensor.device) + 1) * tensor.shape[dim] // (2 * size)
            tensor = tensor.index_select(dim, middles)
    return tensor


def _is_within(small: Tensor, large: Tensor) -> bool:
    return small.ndim == large.ndim and all(own <= other for own, other in zip(small.shape, large.shape, strict=True))


def _same_grouping(name: str, student: nn.Module, teacher: nn.Module) -> bool:
    """Whether each kernel of a convolution looks at the channels that correspond.

    With as many groups on both sides, groups correspond; depthwise kernels have one channel each.
    """
    layers = [model.get_submodule(name.rpartition(".")[0]) for model in (student, teacher)]
    convolutions = [layer for layer in layers if isinstance(layer, _Convolution)]
    if len(convolutions) < 2:
        return True
    depthwise = all(layer.groups == layer.in_channels == layer.out_channels for layer in convolutions)
    return depthwise or convolutions[0].groups == convolutions[1].groups
