"""A classifier and its saliency map, as training, export and validation all see them."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["LEAST_CELLS", "ExplainedModel", "Look", "gradients", "map_size"]

LEAST_CELLS = 4
"""Along each side of a map; a coarser one points at nothing and is refused."""


class Look(NamedTuple):
    """What a model answered, and what its maps are made of."""

    logits: Tensor
    """`[N, K]`."""
    seen: tuple[Tensor, ...]
    """What the method explains by: the target layer's activations, the pixels, or each block's attention."""
    scores: Tensor
    """`[P·N, K]`: the logits that depend on what was seen, of `P` points an image; the logits themselves mostly."""


class ExplainedModel(nn.Module, ABC):
    """A model that also gives the maps of any classes; the model itself is not edited.

    Its subclasses differ in what they look at: `ByCells`, `ByPixels`, `ByAttention`.
    """

    method: str
    """One of `kdedge_export.saliency.METHODS`."""
    target_layer: str | None
    """Module path of the layer that the maps look at; None where they look at no single one."""
    how: str
    """What is differentiated, and how: a head in closed form such as `GAP+Linear`, or what follows the target layer."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    @abstractmethod
    def forward(self, x: Tensor) -> Look:
        """Classify normalised input, float `[N, 3, H, W]`."""

    @abstractmethod
    def class_maps(self, look: Look, classes: Tensor) -> Tensor:
        """The saliency maps of chosen classes.

        With gradients enabled they can be differentiated again, as a loss on maps needs it.

        Args:
            look: from `forward`, in the same mode of gradients.
            classes: int64 `[N, k]`.

        Returns:
            float32 `[N, k, h, w]`; raw, and signed where the method is.
        """


def gradients(scores: Tensor, classes: Tensor, seen: tuple[Tensor, ...]) -> list[tuple[Tensor, ...]]:
    """The gradients of each column of classes with respect to what was seen.

    The images of a batch do not depend on each other, so that the gradient of their scores' sum holds each one's own.

    Args:
        scores: `[N, K]`.
        classes: int64 `[N, k]`.
        seen: tensors that the scores were computed from.

    Returns:
        For each of the `k` columns, a gradient the shape of each tensor.
    """
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        columns = [
            torch.autograd.grad(scores.gather(1, column).sum(), seen, retain_graph=True, create_graph=again)
            for column in torch.split(classes, 1, dim=1)
        ]
    return columns if again else [tuple(part.detach() for part in column) for column in columns]


def map_size(explained: ExplainedModel, example: Tensor) -> tuple[int, int]:
    """Height and width of the map, in cells, for inputs like `example` (float `[1, 3, H, W]`)."""
    with torch.no_grad():
        top = torch.zeros(len(example), 1, dtype=torch.int64, device=example.device)
        shape = explained.class_maps(explained(example), top).shape
    return shape[2], shape[3]
