"""A model as training looks at it: raw pixels in, logits and activations out."""

import torch
from torch import Tensor, nn

from kdedge.distill.compute import Compute
from kdedge.distill.lesson import View
from kdedge_export.errors import HeadNotSupported
from kdedge_export.graph.deployed import Normalise
from kdedge_export.saliency import ExplainedModel, find_head
from kdedge_export.saliency.explained import map_size
from kdedge_export.saliency.find import example_input
from kdedge_export.saliency.trace import evaluating
from kdedge_runtime.metadata import ImageInput

__all__ = ["Watched"]


class Watched(nn.Module):
    """A classifier with its own normalisation, whose saliency maps can be taken when its head allows it."""

    def __init__(self, model: nn.Module, spec: ImageInput, compute: Compute) -> None:
        super().__init__()
        self.spec = spec
        self.normalise = Normalise(spec)
        self.unexplained: str | None = None
        """Why the model has no maps, or None."""
        self.model = model
        self.explained: ExplainedModel | None = None
        try:
            head = find_head(model, example_input(spec.height, spec.width))
        except HeadNotSupported as error:
            self.unexplained = str(error)
        else:
            self.explained = ExplainedModel(model, head)
        self.to(compute.device)
        # What tensor cores and oneDNN prefer (the type stubs do not know this keyword).
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, images: Tensor) -> View:
        """Look at uint8 RGB images `[N, H, W, 3]`; those of another size than the model's are resampled."""
        x = self.normalise(images)
        if self.explained is None:
            return View(None, self.model(x).float(), None)
        logits, activations = self.explained(x)
        return View(self.explained, logits.float(), activations.float())

    @property
    def map_size(self) -> tuple[int, int] | None:
        """Height and width of the model's map in cells, or None when it has none."""
        if self.explained is None:
            return None
        example = example_input(self.spec.height, self.spec.width).to(self.normalise.mean.device)
        with evaluating(self):
            return map_size(self.explained, example)
