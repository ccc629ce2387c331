"""Kinds of saliency methods: by activations, by pixels, by attention, by propagation."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["AttentionMethod", "CAMMethod", "GradientMethod", "Method", "PropagationMethod"]


@dataclass(frozen=True)
class CAMMethod:
    """Method that computes a map from the activations of one layer and the gradients of chosen logits."""

    name: str
    compute: Callable[[Tensor, Tensor], Tensor]
    """Function from activations `[N, C, h, w]` and gradients `[N, k, C, h, w]` to maps `[N, k, h, w]`.

    Gradients that are equal at every position are passed as `[N, k, C, 1, 1]`.
    """
    one_dense_layer: bool = False
    """True if defined only for global average pooling and one dense layer."""


def _no_noise(height: int, width: int) -> Tensor:
    return torch.zeros(0)


@dataclass(frozen=True)
class GradientMethod:
    """Method that computes a map from the gradients of chosen logits at the pixels of one or more points."""

    name: str
    points: Callable[[Tensor, Tensor], Tensor]
    """Function from images `[N, 3, H, W]` and noise to points `[P, N, 3, H, W]`, the images themselves last."""
    combine: Callable[[Tensor, Tensor], Tensor]
    """Function from points and their gradients `[P, N, 3, H, W]` to maps `[N, H, W]`."""
    count: int
    """Number of points; each needs a forward and a backward pass through the whole network."""
    noise: Callable[[int, int], Tensor] = _no_noise
    """Function that returns fixed random constants for images of this height and width."""


@dataclass(frozen=True)
class AttentionMethod:
    """Method that computes a map from the attention matrices of all blocks."""

    name: str
    compute: Callable[[tuple[Tensor, ...], tuple[Tensor, ...]], Tensor]
    """Function from attention and its gradients (or attention again), `[N, heads, T, T]` per block, to relevance
    `[N, T, T]`."""
    by_gradients: bool


@dataclass(frozen=True)
class PropagationMethod:
    """Method that propagates contributions relative to a reference through dense layers."""

    name: str
    multiplier: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
    """Function from input, reference input, output, reference output and derivative of an activation to its
    multiplier, `[N, H]`."""
    combine: Callable[[Tensor, Tensor], Tensor]
    """Function from features `[N, C, h, w]` and multipliers `[N, k, C, h, w]` to maps `[N, k, h, w]`."""


Method = CAMMethod | GradientMethod | AttentionMethod | PropagationMethod
