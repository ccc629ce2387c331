"""Initialization of a student by weight selection from its teacher.

Weight selection of Xu et al., Initializing Models with Larger Ones, ICLR 2024 (§3.2): evenly spaced elements along
every dimension of every shared tensor. The selection depends only on the two sizes, so consecutive layers select the
same channels. Layers are matched by name, which selects the first layers of each stage. The authors take the first
element of each of `n` equal parts; this takes the middle one. Channels are interchangeable, and a smaller convolution
kernel stays centered.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kdedge_runtime.errors import UsageError

__all__ = ["InitSummary", "init_from_teacher", "select_weights"]

_Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d


@dataclass(frozen=True)
class InitSummary:
    """Summary of weight selection: tensors of the student that were copied or kept; scalars are omitted."""

    names: tuple[str, ...]
    """Names of copied tensors."""
    kept: tuple[str, ...]
    """Names of tensors with their random initialization."""

    @property
    def copied(self) -> int:
        """Number of copied tensors."""
        return len(self.names)

    @property
    def total(self) -> int:
        """Number of the student's tensors."""
        return len(self.names) + len(self.kept)


def init_from_teacher(student: nn.Module, teacher: nn.Module) -> InitSummary:
    """Copy a selection of the teacher's weights and batch statistics to a student, in place.

    A tensor keeps its random initialization if the teacher has no tensor of that name, or a smaller one in any
    dimension. Both models should have the same classes in the same order, otherwise classes are mixed up.

    Raises:
        UsageError: no tensor can be copied.
    """
    source = teacher.state_dict()
    names: list[str] = []
    kept: list[str] = []
    for name, value in student.state_dict().items():  # references to the module's own storage
        fits = name in source and _is_within(value, source[name]) and _same_grouping(name, student, teacher)
        if fits:
            value.copy_(select_weights(source[name], value.shape))
        if value.ndim > 0:
            (names if fits else kept).append(name)
    if not names:
        raise UsageError(
            f"{type(student).__name__} can inherit no weights from {type(teacher).__name__}: no layer of the same "
            "name is at least as large there. Choose a student of the teacher's family, such as resnet18 for "
            "resnet34, or remove --init."
        )
    return InitSummary(tuple(names), tuple(kept))


def select_weights(tensor: Tensor, shape: torch.Size) -> Tensor:
    """Select evenly spaced elements along every dimension.

    Args:
        tensor: tensor of any dtype.
        shape: shape of the result, in no dimension larger than the tensor.
    """
    for dim, size in enumerate(shape):
        if size != tensor.shape[dim]:
            middles = (2 * torch.arange(size, device=tensor.device) + 1) * tensor.shape[dim] // (2 * size)
            tensor = tensor.index_select(dim, middles)
    return tensor


def _is_within(small: Tensor, large: Tensor) -> bool:
    return small.ndim == large.ndim and all(own <= other for own, other in zip(small.shape, large.shape, strict=True))


def _same_grouping(name: str, student: nn.Module, teacher: nn.Module) -> bool:
    """Return True if the convolution kernels of both models apply to corresponding channels.

    Groups correspond if both have the same number; depthwise kernels have one channel each.
    """
    layers = [model.get_submodule(name.rpartition(".")[0]) for model in (student, teacher)]
    convolutions = [layer for layer in layers if isinstance(layer, _Convolution)]
    if len(convolutions) < 2:
        return True
    depthwise = all(layer.groups == layer.in_channels == layer.out_channels for layer in convolutions)
    return depthwise or convolutions[0].groups == convolutions[1].groups
