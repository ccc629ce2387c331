"""Explain by attention: where the tokens that are classified have looked, through all blocks."""

import torch
from torch import Tensor, nn

from kdedge_export.errors import HeadNotSupported
from kdedge_export.layout import Layout, layout_of
from kdedge_export.saliency.attention import plain_attention
from kdedge_export.saliency.explained import ExplainedModel, Look, gradients
from kdedge_export.saliency.methods import AttentionMethod
from kdedge_export.saliency.tail import grids_of
from kdedge_export.saliency.trace import evaluating, trace

__all__ = ["ByAttention"]


class ByAttention(ExplainedModel):
    """Watches the attention matrices of a transformer whose blocks all attend from all tokens to all tokens."""

    target_layer = None

    def __init__(self, model: nn.Module, method: AttentionMethod, example: Tensor) -> None:
        """Find the picture's tokens.

        Args:
            model: the classifier.
            method: how attention matrices make a map.
            example: one input at the size the model will be used with, float `[1, 3, H, W]`.

        Raises:
            HeadNotSupported: the model does not attend, or within windows only.
        """
        super().__init__(model)
        self.method, self._compute, self._by_gradients = method.name, method.compute, method.by_gradients
        with evaluating(model), torch.no_grad():
            shapes = {tuple(matrix.shape[:1] + matrix.shape[2:]) for matrix in self(example).seen}
        layout = None
        if len(shapes) == 1:
            batch, rows, columns = shapes.pop()
            if batch == len(example) and rows == columns:
                layout = layout_of((1, rows, 1), grids_of(trace(model, example)))
        if layout is None:
            raise HeadNotSupported(
                f"{type(model).__name__} cannot be explained by {method.name}: that needs blocks which all attend from "
                "all tokens to all tokens (ViT, DeiT). Choose another --method, such as gradcam."
            )
        self.layout: Layout = layout
        self.how = "attention"

    def forward(self, x: Tensor) -> Look:
        """See `ExplainedModel`; what was seen is the attention `[N, heads, T, T]` of each block, first block first."""
        seen: list[Tensor] = []

        def watch(attention: Tensor) -> Tensor:
            if self._by_gradients and not attention.requires_grad:
                attention = attention.detach().requires_grad_()
            seen.append(attention)
            return attention

        with plain_attention(watch), torch.set_grad_enabled(self._by_gradients):
            scores = self.model(x)
        return Look(scores.detach(), tuple(seen), scores)

    def class_maps(self, look: Look, classes: Tensor) -> Tensor:
        """See `ExplainedModel`."""
        columns = [look.seen] * classes.shape[1]
        if self._by_gradients:
            columns = gradients(look.scores, classes, look.seen)
        seen = tuple(attention.detach() for attention in look.seen)
        rows = [self._compute(seen, column) for column in columns]
        maps = [self.layout.channels_first(self._classified(row)[..., None])[:, 0] for row in rows]
        return torch.stack(maps, dim=1)

    def _classified(self, relevance: Tensor) -> Tensor:
        """`[N, T]`: what the class token attends to, or all tokens together where their mean is classified."""
        return relevance[:, 0] if self.layout.prefix else relevance.mean(dim=1)
