"""Models with their weights, from run folders or by name."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from kdedge.modalities import TRAINING_MODALITIES
from kdedge.models.artifacts import Artifacts
from kdedge.models.digest import state_sha256
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
from kdedge.models.pretrained import assumed_input, published_name
from kdedge.models.run_folder import weights_file
from kdedge.models.weight_files import load_state, read_state
from kdedge_runtime.modalities import InputSpec
from kdedge_runtime.modalities.image import ImageInput
from kdedge_runtime.util.files import Location

__all__ = ["TrainedModel", "load_trained"]


@dataclass(frozen=True)
class TrainedModel:
    """Model with weights, ready for teaching, export or validation."""

    model: nn.Module
    spec: ModelSpec
    input: InputSpec
    labels: tuple[str, ...]
    origin: dict[str, Any]
    """Origin for the lineage of model files: `source`, `weights`, `weights_sha256`.

    A factory adds `code_sha256`.
    """
    assumed_input: str | None = None
    """Assumption about preprocessing, if the weights do not specify it, with advice on changing it; None otherwise."""

    task: str = "classify"
    """Task of the model, a key of `kdedge_export.tasks.EXPORT_TASKS`."""

    @property
    def parameters(self) -> int:
        """Number of parameters, without buffers."""
        return sum(parameter.numel() for parameter in self.model.parameters())


def load_trained(
    source: Location, *, weights: Path | None = None, which: Literal["best", "last"] = "best"
) -> TrainedModel:
    """Load a run folder, or a named model with weights from a file.

    Args:
        source: run folder, model name such as `torchvision:resnet18` or `timm:tf_efficientnet_lite0.in1k`, or factory
            such as `nets.py:make_model`.
        weights: `.safetensors` or `.pth` file for a named model; without one its weights are random.
        which: epoch of a run.

    Raises:
        UsageError: the run or model does not exist, or the weights do not fit.
    """
    artifacts = Artifacts.open(source)
    record = artifacts.record
    if artifacts.run is not None and record is not None:
        check_own_weights(artifacts.source, weights)
        file = weights_file(artifacts.run, which)
        model = TRAINING_MODALITIES[record.input.kind].build_model(record.model, record.input)
        load_state(model, read_state(file), str(file))
        origin = _origin(artifacts.source, file)
        return TrainedModel(model, record.model, record.input, record.labels, origin, task=record.task)
    name = published_name(network_name(artifacts.source), weights)
    spec_input = pretrained_input(name)
    state = read_state(weights) if weights is not None else {}
    classes = _classes(name, spec_input, state)
    spec = make_spec(name, classes, fresh_stem=False)
    model = build_model(spec, spec_input.height)
    if weights is not None:
        load_state(model, state, str(weights))
    origin = _origin(name, weights)
    if spec.code_sha256 is not None:  # the name as given by the user: model files are moved between machines
        origin |= {"source": artifacts.source, "code_sha256": spec.code_sha256}
    assumed = None if weights is None else assumed_input(name)
    return TrainedModel(model, spec, spec_input, pretrained_labels(name, classes), origin, assumed)


def _classes(name: str, spec: ImageInput, state: Mapping[str, Tensor]) -> int:
    """Return the number of classes that a model's weights were trained for."""
    rows = [state[tensor].shape[0] for tensor in head_tensors(name, spec.height) if tensor in state]
    return rows[0] if rows else own_classes(name, spec)


def _origin(source: str, weights: Path | None) -> dict[str, Any]:
    if weights is None:
        return {"source": source, "weights": None, "weights_sha256": None}
    return {"source": source, "weights": str(weights), "weights_sha256": state_sha256(weights)}
