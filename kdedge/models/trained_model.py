"""Models with their weights, from run folders or by name."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from kdedge.models.artifacts import Artifacts
from kdedge.models.digest import state_sha256
from kdedge.models.embedding_network import build_network
from kdedge.models.model_registry import (
    build_model,
    head_tensors,
    make_spec,
    own_classes,
    pretrained_input,
    pretrained_labels,
)
from kdedge.models.model_source import check_own_weights, network_name
from kdedge.models.model_spec import ModelSpec
from kdedge.models.network_state import read_network_state
from kdedge.models.network_weights import NetworkWeights, find_weights
from kdedge.models.pretrained import assumed_input, published_name
from kdedge.models.run_folder import weights_file
from kdedge.models.trees import refuse_export
from kdedge.models.weight_files import load_state, read_state
from kdedge.models.zero_shot import ZeroShot, is_clip
from kdedge_runtime.errors import UsageError
from kdedge_runtime.modalities import InputSpec
from kdedge_runtime.modalities.image import ImageInput
from kdedge_runtime.util.files import Location

__all__ = ["TrainedModel", "load_trained"]


_MAX_ENCODER_PX = 224
"""Input size of encoders in px, if their own is larger: DINOv2 has 1369 patches at 518 px, and 256 at this size."""


@dataclass(frozen=True)
class TrainedModel:
    """Model with weights, ready for teaching, export or validation."""

    model: nn.Module
    spec: ModelSpec
    input: InputSpec
    labels: tuple[str, ...]
    """Class names; empty for an encoder, which returns pooled features."""
    origin: dict[str, Any]
    """Origin for the lineage of model files: `source`, `weights`, `weights_sha256`.

    Published weights add `url` and `license`, and a factory adds `code_sha256`.
    """
    assumed_input: str | None = None
    """Assumption about preprocessing, if the weights do not specify it, with advice on changing it; None otherwise."""

    weights: NetworkWeights | None = None
    """Weights of a named network; None for a run, or for random weights."""
    zero_shot: ZeroShot | None = None
    """Classes and prompts of a zero-shot classifier; None for other models."""
    task: str = "classify"
    """Task of the model, a key of `kdedge_export.tasks.EXPORT_TASKS`."""

    @property
    def parameters(self) -> int:
        """Number of parameters, without buffers."""
        return sum(parameter.numel() for parameter in self.model.parameters())


def load_trained(
    source: Location,
    *,
    weights: Path | None = None,
    pretrained: bool | None = None,
    which: Literal["best", "last"] = "best",
    zero_shot: ZeroShot | None = None,
) -> TrainedModel:
    """Load a run folder, or a named model with weights from a file, or with its published weights.

    Args:
        source: run folder, model name such as `torchvision:resnet18` or `timm:tf_efficientnet_lite0.in1k`, or factory
            such as `nets.py:make_model`.
        weights: `.safetensors` or `.pth` file for a named model; None takes its published weights.
        pretrained: False gives a named model random weights; see `find_weights`.
        which: epoch of a run.
        zero_shot: classes of a zero-shot classifier, named `clip:MODEL/TAG`.

    Raises:
        UsageError: the run or model does not exist, it has no weights, or they do not fit.
    """
    artifacts = Artifacts.open(source)
    record = artifacts.record
    if zero_shot is not None and (artifacts.run is not None or not is_clip(artifacts.source)):
        raise UsageError(f"{artifacts.source} has its own classes. Remove --classes and --prompt.")
    if artifacts.run is not None and record is not None:
        check_own_weights(artifacts.source, weights, pretrained)
        refuse_export(artifacts.source, record)
        file = weights_file(artifacts.run, which)
        model = build_network(record.model, record.input)
        load_state(model, read_state(file), str(file))
        origin = _origin(artifacts.source, file)
        return TrainedModel(model, record.model, record.input, record.labels, origin, task=record.task)
    if is_clip(artifacts.source):
        return _load_clip(network_name(artifacts.source), weights, pretrained, zero_shot)
    name = published_name(network_name(artifacts.source), weights)
    found = find_weights(name, weights, pretrained=pretrained)
    if found is None and pretrained is None:
        raise UsageError(
            f"{name} has no published weights. Give trained ones with --weights FILE (--teacher-weights FILE for a "
            "teacher), or export random ones with --no-pretrained."
        )
    name = name if found is None else found.network
    spec_input = pretrained_input(name)
    state = {} if found is None else read_network_state(name, found.file, spec_input.height)
    classes = _classes(name, spec_input, state)
    if found is not None and classes == 0 and spec_input.height > _MAX_ENCODER_PX:
        spec_input = replace(spec_input, height=_MAX_ENCODER_PX, width=_MAX_ENCODER_PX)
        state = read_network_state(name, found.file, spec_input.height)
    spec = make_spec(name, classes, fresh_stem=False)
    model = build_model(spec, spec_input.height)
    if found is not None:
        load_state(model, state, str(found.file))
    origin = _origin(name, None if found is None else found.file)
    if found is not None and found.url is not None:
        origin |= {"url": found.url, "license": found.license}
    if spec.code_sha256 is not None:  # the name as given by the user: model files are moved between machines
        origin |= {"source": artifacts.source, "code_sha256": spec.code_sha256}
    assumed = None if found is None else assumed_input(name)
    return TrainedModel(model, spec, spec_input, pretrained_labels(name, classes), origin, assumed, found)


def _load_clip(name: str, file: Path | None, pretrained: bool | None, zero_shot: ZeroShot | None) -> TrainedModel:
    from kdedge.models.clip import build_clip, find_published_clip

    if zero_shot is None:
        raise UsageError(f'{name} has no classes of its own. Name them: --classes "cat,dog,empty bowl".')
    weights = find_weights(name, file, pretrained=pretrained, published=find_published_clip)
    if weights is None:
        raise UsageError(
            f"{name} needs trained weights. Add a tag, such as clip:ViT-B-32/laion2b_s34b_b79k, or use --weights FILE "
            "(--teacher-weights FILE for a teacher)."
        )
    model, spec_input = build_clip(weights, zero_shot)
    origin = _origin(name, weights.file) | {"prompts": list(zero_shot.prompts)}
    if weights.url is not None:
        origin |= {"url": weights.url, "license": weights.license}
    spec = ModelSpec(name, len(zero_shot.classes), fresh_stem=False)
    return TrainedModel(model, spec, spec_input, zero_shot.classes, origin, weights=weights, zero_shot=zero_shot)


def _classes(name: str, spec: ImageInput, state: Mapping[str, Tensor]) -> int:
    """Return the number of classes that a model's weights were trained for; 0 for an encoder of timm."""
    rows = [state[tensor].shape[0] for tensor in head_tensors(name, spec.height) if tensor in state]
    if rows:
        return rows[0]
    return 0 if state and name.startswith("timm:") else own_classes(name, spec)


def _origin(source: str, weights: Path | None) -> dict[str, Any]:
    if weights is None:
        return {"source": source, "weights": None, "weights_sha256": None}
    return {"source": source, "weights": str(weights), "weights_sha256": state_sha256(weights)}
