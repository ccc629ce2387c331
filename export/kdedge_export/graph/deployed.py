"""The model as the device sees it: raw pixels in, logits and map out. These modules are what is exported."""

import torch
from torch import Tensor, nn

from kdedge_export.errors import HeadNotSupported
from kdedge_export.normalise import Normalise
from kdedge_export.saliency import ExplainedModel, find_head
from kdedge_export.saliency.explained import LEAST_CELLS, map_size
from kdedge_export.saliency.find import example_input
from kdedge_runtime.metadata import ImageInput, Outputs

__all__ = ["METHOD", "TOP_CLASS", "Deployed", "Plain", "deploy"]

METHOD = "gradcam"
"""The map that the graph gives: Grad-CAM before its ReLU."""
TOP_CLASS = -1
"""The class index that stands for each image's top class."""


class Deployed(nn.Module):
    """Normalising, the model and its map in one forward pass."""

    def __init__(self, explained: ExplainedModel, spec: ImageInput) -> None:
        super().__init__()
        self.normalise = Normalise(spec)
        self.explained = explained
        self.spec = spec

    def forward(self, image: Tensor, class_index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Classify and explain.

        Args:
            image: uint8 RGB `[N, H, W, 3]`.
            class_index: int64 `[1]` or `[N]`; -1 explains the top class.

        Returns:
            logits float32 `[N, K]`, raw signed map float32 `[N, h, w]`, explained class int64 `[N]`.
        """
        logits, saliency_map, explained_class, _ = self.with_activations(image, class_index)
        return logits, saliency_map, explained_class

    def with_activations(self, image: Tensor, class_index: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """As `forward`, and the target layer's activations `[N, C, h, w]`."""
        logits, activations = self.explained(self.normalise(image))
        explained_class = torch.where(class_index < 0, logits.argmax(dim=1), class_index)
        saliency_map = self.explained.class_maps(activations, explained_class[:, None])[:, 0]
        return logits, saliency_map, explained_class, activations

    @property
    def map_size(self) -> tuple[int, int]:
        """Height and width of the map, in cells."""
        return map_size(self.explained, example_input(self.spec.height, self.spec.width).to(self.normalise.mean.device))

    @property
    def outputs(self) -> Outputs:
        """What the graph gives, for the model file's metadata."""
        return Outputs(METHOD, self.explained.head.target_layer, self.explained.head.name, *self.map_size)


class Plain(nn.Module):
    """Normalising and the model, without a map: what `--method none` exports, for comparison."""

    def __init__(self, model: nn.Module, spec: ImageInput) -> None:
        super().__init__()
        self.normalise = Normalise(spec)
        self.model = model
        self.spec = spec

    def forward(self, image: Tensor) -> Tensor:
        """Logits float32 `[N, K]` of uint8 RGB `[N, H, W, 3]`."""
        logits: Tensor = self.model(self.normalise(image))
        return logits

    @property
    def outputs(self) -> Outputs:
        """What the graph gives, for the model file's metadata."""
        return Outputs("none")


def deploy(model: nn.Module, spec: ImageInput) -> Deployed:
    """Wrap a trained classifier for export or validation, in evaluation mode and without gradients.

    Raises:
        HeadNotSupported: the model's head has no closed-form map, or one too coarse to mean anything.
    """
    model.eval().requires_grad_(False)
    device = next(model.parameters()).device
    head = find_head(model, example_input(spec.height, spec.width).to(device))
    deployed = Deployed(ExplainedModel(model, head), spec).to(device).eval()
    height, width = deployed.map_size
    if min(height, width) < LEAST_CELLS:
        raise HeadNotSupported(
            f"The saliency map of {type(model).__name__} has only {height}×{width} cells at {spec.height}×{spec.width} "
            f"px; at least {LEAST_CELLS}×{LEAST_CELLS} are needed to point at anything. Train it with a finer "
            "--output-stride or a larger --size, or export it without a map: --method none."
        )
    return deployed
