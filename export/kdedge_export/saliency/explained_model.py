"""Interface of a classifier with saliency maps, shared by training, export and validation."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["MIN_POSITIONS", "ExplainedModel", "ForwardOutput", "gradients", "map_size"]

MIN_POSITIONS = 4
"""Minimum map resolution along each side; coarser maps are rejected."""


class ForwardOutput(NamedTuple):
    """Result of a forward pass: logits and the inputs of the attribution."""

    logits: Tensor
    """Logits `[N, K]`."""
    attribution_inputs: tuple[Tensor, ...]
    """Attribution inputs: the target layer's activations, the pixels, each block's attention, or the features and the
    multipliers of each activation."""
    target_logits: Tensor
    """Logits `[P·N, K]` that depend on the attribution inputs, for `P` points per image; usually the logits
    themselves."""


class ExplainedModel(nn.Module, ABC):
    """Model that also returns the maps of any classes; the model itself is not modified.

    Subclasses differ in their attribution inputs: `CAMExplainer`, `GradientExplainer`, `AttentionExplainer`,
    `DenseExplainer`.
    """

    method: str
    """Method name, one of `kdedge_export.saliency.METHODS`."""
    target_layer: str | None
    """Module path of the target layer; None if the method has none."""
    head_description: str
    """Description of the differentiated layers: a closed-form head such as `GAP+Linear`, or the layers after the
    target layer."""

    is_closed_form = False
    """True if maps are computed by forward operations alone, so that they are continuous and nothing is
    differentiated."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def attach(self) -> None:  # most methods need no hooks
        """Register the hooks that a forward pass needs; a new explainer has them."""

    def detach(self) -> None:
        """Remove the hooks, so that the model can be copied, saved and run by itself."""

    @abstractmethod
    def forward(self, x: Tensor) -> ForwardOutput:
        """Classify normalized input, float `[N, 3, H, W]`."""

    @abstractmethod
    def class_maps(self, output: ForwardOutput, classes: Tensor) -> Tensor:
        """Compute the saliency maps of chosen classes.

        With gradients enabled the maps can be differentiated again, as needed by a loss on maps.

        Args:
            output: result of `forward`, with the same gradient mode.
            classes: int64 `[N, k]`.

        Returns:
            float32 `[N, k, h, w]`; raw, and signed if the method is.
        """


def gradients(
    target_logits: Tensor, classes: Tensor, attribution_inputs: tuple[Tensor, ...]
) -> list[tuple[Tensor, ...]]:
    """Compute the gradients of each column of classes with respect to the attribution inputs.

    The images of a batch are independent, so the gradient of the sum of their scores contains each image's own.

    Args:
        target_logits: `[N, K]`.
        classes: int64 `[N, k]`.
        attribution_inputs: tensors that the scores were computed from.

    Returns:
        For each of the `k` columns, one gradient of the shape of each tensor.
    """
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        columns = [
            torch.autograd.grad(
                target_logits.gather(1, column).sum(), attribution_inputs, retain_graph=True, create_graph=again
            )
            for column in torch.split(classes, 1, dim=1)
        ]
    return columns if again else [tuple(part.detach() for part in column) for column in columns]


def map_size(explained: ExplainedModel, example: Tensor) -> tuple[int, int]:
    """Return the height and width of the map for inputs like `example` (float `[1, 3, H, W]`)."""
    with torch.no_grad():
        top = torch.zeros(len(example), 1, dtype=torch.int64, device=example.device)
        shape = explained.class_maps(explained(example), top).shape
    return shape[2], shape[3]
