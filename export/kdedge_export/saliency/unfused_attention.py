"""Unfused attention that exposes the attention matrices.

It computes the same products as PyTorch's fused kernels, which do not return their attention matrices and whose
derivatives cannot be exported to ONNX.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import functional as F

from kdedge_export.errors import HeadNotSupported

__all__ = ["unfuse_attention"]

Watch = Callable[[Tensor], Tensor]


@contextmanager
def unfuse_attention(watch: Watch = lambda attention: attention) -> Iterator[None]:
    """Compute attention by matrix products and a softmax inside the block.

    Args:
        watch: called with each attention matrix `[N, heads, T, T]` in forward order; returns the matrix to use.

    Raises:
        HeadNotSupported: the attention is causal or grouped, which image classifiers do not need.
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
                "The model calls scaled_dot_product_attention with "
                f"{'is_causal' if is_causal else 'enable_gqa'}=True, whose derivative cannot be exported. Use an "
                "attn_mask, or separate keys and values per head, or export without a map: --method none."
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
