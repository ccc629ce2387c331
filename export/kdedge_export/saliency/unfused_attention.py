"""Attention in the open: the same products as PyTorch's fused kernels, with the matrices in sight.

Fused kernels have no derivative that ONNX knows, and keep their attention matrices to themselves.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import functional as F

from kdedge_export.errors import HeadNotSupported

__all__ = ["plain_attention"]

Watch = Callable[[Tensor], Tensor]


@contextmanager
def plain_attention(watch: Watch = lambda attention: attention) -> Iterator[None]:
    """Inside the block, attention is computed by matrix products and a softmax.

    Args:
        watch: sees each attention matrix `[N, heads, T, T]` in the order of the forward pass, and returns the one to go
            on with.

    Raises:
        HeadNotSupported: the attention is causal or grouped; networks for pictures have no use for either.
    """

    def attend(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        if is_causal or enable_gqa:
            raise HeadNotSupported(
                f"The model calls scaled_dot_product_attention with {'is_causal' if is_causal else 'enable_gqa'}=True, "
                "whose derivative cannot be exported. Give it an attn_mask, or keys and values for each head, instead, "
                "or export without a map: --method none."
            )
        products = (query * (query.shape[-1] ** -0.5 if scale is None else scale)) @ key.transpose(-2, -1)
        if attn_mask is not None:
            if attn_mask.dtype == torch.bool:
                attn_mask = torch.zeros_like(products).masked_fill(~attn_mask, -torch.inf)
            products = products + attn_mask
        attention = watch(products.softmax(dim=-1))
        return F.dropout(attention, dropout_p) @ value

    fused, fast_path = F.scaled_dot_product_attention, torch.backends.mha.get_fastpath_enabled()
    F.scaled_dot_product_attention = attend
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        F.scaled_dot_product_attention = fused
        torch.backends.mha.set_fastpath_enabled(fast_path)
