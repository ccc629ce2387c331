"""Attention explainer: relevance of image tokens to the classified tokens through all blocks.

The classified tokens are the rows of the last attention that affect the logits. These are the class token's row, or
those of all averaged tokens, without registers that are not among them.
"""

import torch
from torch import Tensor, nn

from kdedge_export.errors import HeadNotSupported
from kdedge_export.saliency.autograd_head import feature_grids, randomize_zero_parameters
from kdedge_export.saliency.cosine_layer import explained_similarities
from kdedge_export.saliency.explained_model import ExplainedModel, ForwardOutput, gradients
from kdedge_export.saliency.methods import AttentionMethod
from kdedge_export.saliency.tracing import evaluating, trace
from kdedge_export.saliency.unfused_attention import unfuse_attention
from kdedge_export.spatial_layout import SpatialLayout, layout_of

__all__ = ["AttentionExplainer"]


class AttentionExplainer(ExplainedModel):
    """Explain a transformer by its attention matrices; every block must attend from all tokens to all tokens."""

    target_layer = None

    def __init__(self, model: nn.Module, method: AttentionMethod, example: Tensor) -> None:
        """Find the image tokens.

        Args:
            model: the classifier.
            method: function from attention matrices to a map.
            example: one input at the model's input size, float `[1, 3, H, W]`.

        Raises:
            HeadNotSupported: the model has no attention, or only within windows.
        """
        super().__init__(model)
        self._explained = explained_similarities(model)
        self.method, self._compute, self._by_gradients = method.name, method.compute, method.by_gradients
        with evaluating(model), randomize_zero_parameters(model):
            target_logits, attribution_inputs = self._attend(example, differentiated=True)
            moved = (
                torch.autograd.grad(target_logits.max(), attribution_inputs[-1:], allow_unused=True)[0]
                if attribution_inputs
                else None
            )
        shapes = {tuple(matrix.shape[:1] + matrix.shape[2:]) for matrix in attribution_inputs}
        layout = None
        if len(shapes) == 1 and moved is not None and moved.any():
            batch, rows, columns = shapes.pop()
            if batch == len(example) and rows == columns:
                layout = layout_of((1, rows, 1), feature_grids(trace(model, example)))
        if layout is None:
            raise HeadNotSupported(
                f"{type(model).__name__} cannot be explained by {method.name}: every block must attend from all "
                "tokens to all tokens (ViT, DeiT). Choose another --method, such as gradcam."
            )
        self.layout: SpatialLayout = layout
        self.head_description = "attention"
        assert moved is not None
        classified = moved[0].any(dim=0).any(dim=-1).float()
        self.classifies_prefix = bool(classified[: layout.prefix].any() and not classified[layout.prefix :].any())
        """True if only prefix tokens are classified, such as a class token."""
        self.register_buffer("_classified", classified / classified.sum(), persistent=False)

    def forward(self, x: Tensor) -> ForwardOutput:
        """Classify an input; see `ExplainedModel`.

        The attribution inputs are the attention `[N, heads, T, T]` of each block.
        """
        target_logits, attribution_inputs = self._attend(x, self._by_gradients)
        logits = target_logits if torch.is_grad_enabled() else target_logits.detach()
        return ForwardOutput(logits, attribution_inputs, target_logits)

    def _attend(self, x: Tensor, differentiated: bool) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the scores and the attention matrices they were computed from."""
        attribution_inputs: list[Tensor] = []

        def watch(attention: Tensor) -> Tensor:
            if differentiated and not attention.requires_grad:
                attention = attention.detach().requires_grad_()
            attribution_inputs.append(attention)
            return attention

        with unfuse_attention(watch), torch.set_grad_enabled(differentiated or torch.is_grad_enabled()):
            target_logits = self._explained(self.model(x))
        return target_logits, tuple(attribution_inputs)

    def class_maps(self, output: ForwardOutput, classes: Tensor) -> Tensor:
        """Compute class maps; see `ExplainedModel`."""
        columns = [output.attribution_inputs] * classes.shape[1]
        if self._by_gradients:
            columns = gradients(output.target_logits, classes, output.attribution_inputs)
        attention = output.attribution_inputs
        if not torch.is_grad_enabled():
            attention = tuple(matrix.detach() for matrix in attention)
        classified = self.get_buffer("_classified")
        maps = []
        for column in columns:
            row = self._compute(attention, column)
            row = row.to(torch.promote_types(row.dtype, torch.float32))  # half precision under autocast
            maps.append(self.layout.channels_first((classified.to(row.dtype) @ row)[..., None])[:, 0])
        return torch.stack(maps, dim=1)
