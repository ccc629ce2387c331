"""What a saliency method is made of, by what it looks at."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["AttentionMethod", "CellMethod", "Method", "PixelMethod"]


@dataclass(frozen=True)
class CellMethod:
    """A map from the activations of one layer and the gradients of chosen logits there."""

    name: str
    compute: Callable[[Tensor, Tensor], Tensor]
    """Activations `[N, C, h, w]` and gradients `[N, k, C, h, w]` to maps `[N, k, h, w]`.

    Where the gradient is the same at every cell it comes as `[N, k, C, 1, 1]`.
    """
    one_dense_layer: bool = False
    """Whether it is defined only for global average pooling and one dense layer."""


def _no_noise(height: int, width: int) -> Tensor:
    return torch.zeros(0)


@dataclass(frozen=True)
class PixelMethod:
    """A map from the gradients of chosen logits at the pixels of one or more points."""

    name: str
    points: Callable[[Tensor, Tensor], Tensor]
    """Images `[N, 3, H, W]` and the noise to points `[P, N, 3, H, W]`, of which the last are the images themselves."""
    combine: Callable[[Tensor, Tensor], Tensor]
    """Points and their gradients `[P, N, 3, H, W]` to maps `[N, H, W]`."""
    count: int
    """How many points; each is a picture that goes through the whole network and back."""
    noise: Callable[[int, int], Tensor] = _no_noise
    """Random constants for pictures of this height and width, always the same ones."""


@dataclass(frozen=True)
class AttentionMethod:
    """A map from the attention matrices of all blocks."""

    name: str
    compute: Callable[[tuple[Tensor, ...], tuple[Tensor, ...]], Tensor]
    """Attention and its gradients (or itself again), `[N, heads, T, T]` of each block, to relevance `[N, T, T]`."""
    by_gradients: bool


Method = CellMethod | PixelMethod | AttentionMethod
