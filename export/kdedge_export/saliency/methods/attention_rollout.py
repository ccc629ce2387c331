"""Attention rollout (Abnar and Zuidema, 2020)."""

import torch
from torch import Tensor

__all__ = ["attention_rollout"]


def attention_rollout(attention: tuple[Tensor, ...], gradients: tuple[Tensor, ...]) -> Tensor:
    """Compute attention rollout: `Ã_L … Ã_1` with `Ã = ½ mean_heads(A) + ½ I`; class-agnostic.

    Abnar and Zuidema, Quantifying Attention Flow in Transformers, ACL 2020, eq. 1 and section 3.

    Args:
        attention: float `[N, heads, T, T]` of each block, first block first.
        gradients: unused.

    Returns:
        `[N, T, T]`, nonnegative; its rows sum to 1.
    """
    size = attention[0].shape[-1]
    identity = torch.eye(size, dtype=attention[0].dtype, device=attention[0].device)
    rollout: Tensor | None = None
    for matrix in attention:
        mixed = 0.5 * matrix.mean(dim=1) + 0.5 * identity
        rollout = mixed if rollout is None else mixed @ rollout
    assert rollout is not None
    return rollout
