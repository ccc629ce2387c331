"""Exportable models: raw samples in, logits and saliency map out."""

import torch
from torch import Tensor, nn

from kdedge_export.errors import HeadNotSupported
from kdedge_export.modalities import modality_of
from kdedge_export.saliency import ExplainedModel, ForwardOutput, make_explained
from kdedge_export.saliency.explained_model import MIN_POSITIONS, map_size
from kdedge_export.torch_export.export_errors import translate_export_errors
from kdedge_runtime.metadata import Outputs
from kdedge_runtime.modalities import InputSpec
from kdedge_runtime.util.counts import grid_text

__all__ = ["ExportableModel", "ClassifierOnly", "wrap_for_export"]


class ExportableModel(nn.Module):
    """Front end, model and saliency map in one forward pass."""

    def __init__(self, explained: ExplainedModel, spec: InputSpec) -> None:
        super().__init__()
        self.front_end = modality_of(spec).front_end(spec)
        self.explained = explained
        self.spec = spec

    def forward(self, sample: Tensor, class_index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Predict and explain samples.

        Args:
            sample: samples as the graph takes them; images are uint8 RGB `[N, H, W, 3]`.
            class_index: int64 `[1]` or `[N]`; -1 explains the top-1 class.

        Returns:
            logits float32 `[N, K]`, raw signed map float32 `[N, h, w]`, explained class int64 `[N]`.
        """
        logits, saliency_map, explained_class, _ = self.with_attribution_inputs(sample, class_index)
        return logits, saliency_map, explained_class

    def with_attribution_inputs(
        self, sample: Tensor, class_index: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, ...]]:
        """Run `forward` and also return the attribution inputs (`ForwardOutput.attribution_inputs`)."""
        output: ForwardOutput = self.explained(self.front_end(sample))
        explained_class = torch.where(class_index < 0, output.logits.argmax(dim=1), class_index)
        saliency_map = self.explained.class_maps(output, explained_class[:, None]).squeeze(1)
        return output.logits, saliency_map, explained_class, output.attribution_inputs

    @property
    def map_size(self) -> tuple[int, int]:
        """Height and width of the map."""
        device = next(self.parameters()).device
        return map_size(self.explained, modality_of(self.spec).example(self.spec).to(device))

    @property
    def outputs(self) -> Outputs:
        """Output description for the model file's metadata."""
        return Outputs(
            self.explained.method, self.explained.target_layer, self.explained.head_description, *self.map_size
        )


class ClassifierOnly(nn.Module):
    """Front end and model without a map, as exported by `--method none`."""

    def __init__(self, model: nn.Module, spec: InputSpec) -> None:
        super().__init__()
        self.front_end = modality_of(spec).front_end(spec)
        self.model = model
        self.spec = spec

    def forward(self, sample: Tensor) -> Tensor:
        """Compute logits float32 `[N, K]` of samples."""
        logits: Tensor = self.model(self.front_end(sample))
        return logits

    @property
    def outputs(self) -> Outputs:
        """Output description for the model file's metadata."""
        return Outputs("none")


def wrap_for_export(
    model: nn.Module, spec: InputSpec, method: str | None = None, target_layer: str | None = None
) -> ExportableModel:
    """Wrap a trained classifier for export or validation, in evaluation mode and without gradients.

    Args:
        model: the classifier.
        spec: its input specification.
        method: one of `kdedge_export.saliency.METHODS`; None uses the default for the head.
        target_layer: module path of the layer whose activations the map uses; None finds it.

    Raises:
        GraphNotSupported: the model does not run at this image size, or cannot be differentiated.
        HeadNotSupported: the model does not support this method, or its map is too coarse.
        UsageError: there is no such layer or method, or the method uses no target layer.
    """
    model.eval().requires_grad_(False)
    device = next(model.parameters()).device
    with translate_export_errors(model):
        explained = make_explained(model, modality_of(spec).example(spec).to(device), method, target_layer)
        deployed = ExportableModel(explained, spec).to(device).eval()
        height, width = deployed.map_size
    if spec.positions((height, width)) < MIN_POSITIONS:
        raise HeadNotSupported(
            f"The saliency map of {type(model).__name__} has a resolution of only {grid_text(height, width)} at "
            f"{spec.summary}. Expected at least {MIN_POSITIONS} positions a side. Train with a finer "
            "--output-stride or a larger --size, name an earlier --target-layer, or export without a map: --method "
            "none."
        )
    return deployed
