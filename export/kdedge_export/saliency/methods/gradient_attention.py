"""Gradient-weighted attention (Chefer et al., 2021)."""

from torch import Tensor

__all__ = ["gradient_attention"]


def gradient_attention(attention: tuple[Tensor, ...], gradients: tuple[Tensor, ...]) -> Tensor:
    """Compute relevance by `R ← R + Ā R` from `R = I`, with `Ā = mean_heads ReLU(dz/dA ⊙ A)`, minus the identity.

    Chefer et al., Generic Attention-model Explainability, ICCV 2021, eq. 5 and 6.

    Args:
        attention: float `[N, heads, T, T]` of each block, first block first.
        gradients: same shapes.

    Returns:
        `[N, T, T]`, nonnegative.
    """
    relevance: Tensor | None = None  # without the identity, which carries no relevance of other tokens
    for matrix, gradient in zip(attention, gradients, strict=True):
        mixed = (gradient * matrix).relu().mean(dim=1)
        relevance = mixed if relevance is None else relevance + mixed + mixed @ relevance
    assert relevance is not None
    return relevance
