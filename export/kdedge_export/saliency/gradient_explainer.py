"""Gradient explainer: maps at pixel resolution, by differentiating the whole model."""

import torch
from torch import Tensor, nn

from kdedge_export.saliency.explained_model import ExplainedModel, ForwardOutput, gradients
from kdedge_export.saliency.methods import GradientMethod

__all__ = ["GradientExplainer"]


class GradientExplainer(ExplainedModel):
    """Explain a classifier by the gradients of the logits at the input, at one or more points around it."""

    target_layer = None

    def __init__(self, model: nn.Module, method: GradientMethod, example: Tensor) -> None:
        """Prepare the points and the noise.

        Args:
            model: the classifier.
            method: points, and the function from their gradients to a map.
            example: one input at the model's input size, float `[1, 3, H, W]`.
        """
        super().__init__(model)
        self.method, self._points, self._combine = method.name, method.points, method.combine
        self.how = "input"
        noise = method.noise(example.shape[2], example.shape[3])
        self.register_buffer("noise", noise, persistent=False)

    def forward(self, x: Tensor) -> ForwardOutput:
        """Classify an input; see `ExplainedModel`.

        The attribution inputs are the points `[P·N, 3, H, W]`, the images last.
        """
        points = self._points(x.detach(), self.get_buffer("noise"))
        with torch.enable_grad():
            seen = points.flatten(0, 1).detach().requires_grad_()
            scores = self.model(seen)
        return ForwardOutput(scores.detach()[-x.shape[0] :], (seen,), scores)

    def class_maps(self, look: ForwardOutput, classes: Tensor) -> Tensor:
        """Compute class maps; see `ExplainedModel`."""
        (pixels,) = look.seen
        points = (-1, *look.logits.shape[:1], *pixels.shape[1:])
        repeated = classes.repeat(pixels.shape[0] // classes.shape[0], 1)
        columns = gradients(look.scores, repeated, look.seen)
        seen = pixels.detach().reshape(points)
        return torch.stack([self._combine(seen, gradient.reshape(points)) for (gradient,) in columns], dim=1)
