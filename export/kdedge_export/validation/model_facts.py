"""Size, checksum and accuracy of one validated model."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kdedge_export.metrics.auroc import auroc, auroc_interval
from kdedge_export.metrics.confidence import Interval, mean_interval
from kdedge_export.metrics.torch_predictions import Predictions, TorchModel, weight_bytes
from kdedge_export.tasks import TaskMetrics
from kdedge_runtime import Model
from kdedge_runtime.int8_arithmetic import Arithmetic
from kdedge_runtime.util.arrays import Targets
from kdedge_runtime.util.files import file_sha256

__all__ = ["ModelFacts", "Origin", "model_facts"]


@dataclass(frozen=True)
class Origin:
    """Source of a model that is not a `Model`, for the report."""

    name: str = ""
    """Name, such as the architecture."""
    sha256: str | None = None
    """SHA-256 of the weights or the file, if known."""
    bytes: int | None = None
    """File size of a model without weights, such as trees; None takes the parameters and buffers of the module."""


@dataclass(frozen=True)
class ModelFacts:
    """Description of one validated model."""

    name: str
    """File name, or the class name of a PyTorch module."""
    bytes: int
    """File size; for a PyTorch module with weights the size of its parameters and buffers."""
    sha256: str | None
    """SHA-256 of the file; for a PyTorch module of its checkpoint, if known."""
    accuracy: float | None
    """Accuracy of the task, such as top-1 in [0, 1]; None without labels."""
    accuracy_interval: Interval | None = None
    auroc: float | None = None
    """Area under the ROC curve of the second of two classes, in [0, 1]; None for other tasks, or without labels."""
    auroc_interval: Interval | None = None
    quantization: Mapping[str, Any] | None = None
    """Quantization entry of the file's metadata; None if not quantized."""
    arithmetic: Arithmetic | None = None
    """Integer arithmetic used for all results except latency and memory; None if not quantized."""


def model_facts(
    model: TorchModel | Model, origin: Origin, found: Predictions, targets: Targets | None, task: TaskMetrics
) -> ModelFacts:
    """Describe a model with its accuracy on the validation samples.

    Args:
        model: PyTorch module, or model file.
        origin: name, size and checkpoint of a module.
        found: its predictions.
        targets: ground truth of the samples, `[N]`; None without labels.
        task: metrics of the task.
    """
    right = None if targets is None else task.correct(found.logits, targets)
    area, area_interval = (None, None) if targets is None else _area_under_curve(found, targets, task)
    measured: dict[str, Any] = {
        "accuracy": None if right is None else float(right.mean()),
        "accuracy_interval": None if right is None else mean_interval(right, task.bounds),
        "auroc": area,
        "auroc_interval": area_interval,
    }
    if isinstance(model, Model):
        size, sha256 = model.path.stat().st_size, file_sha256(model.path)
        quantization, arithmetic = model.metadata.quantization, model.arithmetic
        return ModelFacts(model.path.name, size, sha256, **measured, quantization=quantization, arithmetic=arithmetic)
    size = weight_bytes(model) if origin.bytes is None else origin.bytes
    return ModelFacts(origin.name, size, origin.sha256, **measured)


def _area_under_curve(found: Predictions, targets: Targets, task: TaskMetrics) -> tuple[float | None, Interval | None]:
    """Compute the area with its interval; None without samples of both classes."""
    scores, is_positive = task.positive_score(found.logits), targets == 1
    if scores is None or is_positive.all() or not is_positive.any():
        return None, None
    groups = scores[is_positive], scores[~is_positive]
    return auroc(*groups), auroc_interval(*groups)
