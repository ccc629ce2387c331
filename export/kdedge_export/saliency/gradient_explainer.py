"""Gradient explainer: maps at pixel resolution, by differentiating the whole model."""

import torch
from torch import Tensor, nn

from kdedge_export.saliency.cosine_layer import explained_similarities
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
        self._explained = explained_similarities(model)
        self.method, self._points, self._combine = method.name, method.points, method.combine
        self.head_description = "input"
        noise = method.noise(example.shape[2], example.shape[3])
        self.register_buffer("noise", noise, persistent=False)

    def forward(self, x: Tensor) -> ForwardOutput:
        """Classify an input; see `ExplainedModel`.

        The attribution inputs are the points `[P·N, 3, H, W]`, the images last.
        """
        points = self._points(x.detach(), self.get_buffer("noise"))
        with torch.enable_grad():
            attribution_inputs = points.flatten(0, 1).detach().requires_grad_()
            logits = self.model(attribution_inputs)
            target_logits = self._explained(logits)
        last = logits[-x.shape[0] :]
        return ForwardOutput(last if torch.is_grad_enabled() else last.detach(), (attribution_inputs,), target_logits)

    def class_maps(self, output: ForwardOutput, classes: Tensor) -> Tensor:
        """Compute class maps; see `ExplainedModel`."""
        (pixels,) = output.attribution_inputs
        points = (-1, *output.logits.shape[:1], *pixels.shape[1:])
        repeated = classes.repeat(pixels.shape[0] // classes.shape[0], 1)
        columns = gradients(output.target_logits, repeated, output.attribution_inputs)
        attribution_inputs = pixels.detach().reshape(points)
        return torch.stack(
            [self._combine(attribution_inputs, gradient.reshape(points)) for (gradient,) in columns], dim=1
        )
