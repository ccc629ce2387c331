"""Instrumented model for training: raw pixels in; logits, maps and intermediate features out."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from kdedge.losses.loss_inputs import ModelOutput
from kdedge.training.compute_device import ComputeDevice
from kdedge.training.memory_format import memory_format
from kdedge.training.pooled_features import POOLED, watch_pooled
from kdedge_export.errors import HeadNotSupported
from kdedge_export.modalities import modality_of
from kdedge_export.saliency import AttentionExplainer, ExplainedModel, make_explained
from kdedge_export.saliency.explained_model import map_size
from kdedge_export.saliency.tracing import evaluating
from kdedge_runtime.errors import UsageError
from kdedge_runtime.modalities import InputSpec

__all__ = ["InstrumentedModel", "explained_output"]

_MAX_BY_ATTENTION = 4
"""Maximum number of classes explained at once; each needs a backward pass through all blocks."""


class InstrumentedModel(nn.Module):
    """Classifier with its normalization, and saliency maps if its head supports them.

    The model itself is not modified: intermediate features are captured by hooks.
    """

    def __init__(self, model: nn.Module, spec: InputSpec, compute: ComputeDevice, *, is_headless: bool = False) -> None:
        """Wrap a model.

        Args:
            model: classifier, or an encoder that returns pooled features `[N, D]`.
            spec: input of the model.
            compute: device and precision.
            is_headless: True for an encoder.
        """
        super().__init__()
        self.is_headless = is_headless
        self.spec = spec
        self.front_end = modality_of(spec).front_end(spec)
        self.unexplained: str | None = None
        """Reason why the model has no maps, or None."""
        self.model = model
        self.explained: ExplainedModel | None = None
        self._features: list[Tensor | None] = []
        try:
            if is_headless:
                raise HeadNotSupported(f"{type(model).__name__} has no classes.")
            explained = make_explained(model, modality_of(spec).example(spec))
        except HeadNotSupported as error:
            self.unexplained = str(error)
        else:
            if compute.compiled and not explained.is_closed_form:
                self.unexplained = (
                    f"{type(model).__name__} needs differentiation for its maps ({explained.head_description}), which "
                    "compiled steps do not support. Remove --compile."
                )
            else:
                self.explained = explained
        self.to(compute.device)
        self._memory_format = memory_format(model, compute.device)
        self.to(memory_format=self._memory_format)  # type: ignore[call-overload]  # unknown to the type stubs

    def watch(self, layers: Sequence[str]) -> None:
        """Capture the outputs of these layers (module paths, or `POOLED`) as features, in this order."""
        self._features = [None] * len(layers)

        def catch(index: int, output: Tensor) -> None:
            self._features[index] = output.clone()  # the next layer may work in place

        for index, path in enumerate(layers):
            if path == POOLED:
                watch_pooled(self.model, self._example, partial(catch, index), self.is_headless)
                continue
            layer = self.model.get_submodule(path)
            layer.register_forward_hook(lambda _module, _args, output, index=index: catch(index, output))

    def forward(self, samples: Tensor, wanted: int | Tensor = 0) -> ModelOutput:
        """Run the model.

        Args:
            samples: preprocessed samples `[N, …]`; images of another size are resampled.
            wanted: classes to explain, int64 `[N, k]`, or the number of most probable classes.
        """
        x = self.front_end(samples).contiguous(memory_format=self._memory_format)
        if self.explained is None or (isinstance(wanted, int) and wanted == 0):
            logits = self.model(x).float()
            return ModelOutput(logits, features=self._caught())
        return replace(explained_output(self.explained, x, wanted), features=self._caught())

    @property
    def _example(self) -> Tensor:
        return modality_of(self.spec).example(self.spec).to(next(self.parameters()).device)

    def _caught(self) -> tuple[Tensor, ...]:
        return tuple(feature.float() for feature in self._features if feature is not None)

    @property
    def map_size(self) -> tuple[int, int] | None:
        """Height and width of the model's map, or None without maps."""
        if self.explained is None:
            return None
        with evaluating(self):
            return map_size(self.explained, self._example)


def explained_output(explained: ExplainedModel, x: Tensor, wanted: int | Tensor) -> ModelOutput:
    """Run a classifier, and compute the maps of some classes in float32, even under autocast.

    Args:
        explained: classifier with maps.
        x: normalized samples, float `[N, …]`.
        wanted: classes to explain, int64 `[N, k]`, or the number of most probable classes, above 0.

    Raises:
        UsageError: the classifier returns more than logits, which may depend on its mode.
    """
    output = explained(x)
    if not isinstance(output.logits, Tensor):  # auxiliary heads in training mode, which were not there to be found
        raise UsageError(
            f"{type(explained.model).__name__} returns {type(output.logits).__name__} in training mode. Expected "
            "logits alone, as with aux_logits=False."
        )
    logits, classes = output.logits.float(), wanted
    if isinstance(classes, int):
        most = _MAX_BY_ATTENTION if isinstance(explained, AttentionExplainer) else logits.shape[1]
        classes = logits.topk(min(classes, most, logits.shape[1]), dim=1).indices
    with torch.autocast(x.device.type, enabled=False):
        maps = explained.class_maps(output, classes)
    return ModelOutput(logits, classes, maps)
