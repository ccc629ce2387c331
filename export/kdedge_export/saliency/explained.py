"""A classifier and its saliency map, as training, export and validation all see them."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kdedge_export.saliency.head import Head

__all__ = ["LEAST_CELLS", "ExplainedModel", "map_size"]

LEAST_CELLS = 4
"""Along each side of a map; a coarser one points at nothing and is refused."""


class _Slot:
    """Where the hook leaves the activations; a plain object, so that `torch.export` does not copy it."""

    activations: Tensor | None = None

    def put(self, value: Tensor) -> None:
        self.activations = value

    def take(self) -> Tensor:
        value, self.activations = self.activations, None
        assert value is not None, "the target layer did not run"
        return value


class ExplainedModel(nn.Module):
    """A model that also gives the activations its head pools, and the maps of any classes.

    The model itself is not edited: the activations are caught by a hook on the target layer.
    """

    def __init__(self, model: nn.Module, head: Head) -> None:
        super().__init__()
        self.model = model
        self.head = head
        self._slot = slot = _Slot()
        layer = model.get_submodule(head.target_layer)
        if head.takes_input:
            layer.register_forward_pre_hook(lambda _module, args: slot.put(args[0]))
        else:
            layer.register_forward_hook(lambda _module, _args, output: slot.put(output))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits `[N, K]` and activations `[N, C, h, w]` of normalised input `[N, 3, H, W]`."""
        logits = self.model(x)
        return logits, self._slot.take()

    def class_maps(self, activations: Tensor, classes: Tensor) -> Tensor:
        """The saliency maps of chosen classes: Grad-CAM before its ReLU.

        `map_c = sum_k (dz_c/dp_k) A_k / (h·w)`, with the pooled features `p` taken without dropout.

        Args:
            activations: float `[N, C, h, w]`, from `forward`.
            classes: int64 `[N, k]`.

        Returns:
            `[N, k, h, w]` in the activations' dtype; raw and signed.
        """
        height, width = activations.shape[2:]
        weights = self.head.channel_weights(self.model, activations.mean(dim=(2, 3)), classes)
        maps = weights @ activations.flatten(2) / (height * width)
        return maps.reshape(*classes.shape, height, width)


def map_size(explained: ExplainedModel, example: Tensor) -> tuple[int, int]:
    """Height and width of the map, in cells, for inputs like `example` (float `[1, 3, H, W]`)."""
    with torch.no_grad():
        shape: Sequence[int] = explained(example)[1].shape
    return shape[2], shape[3]
