"""Teachers: a PyTorch model, an ensemble, or a model file of any framework."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from kdedge.losses.loss_inputs import ModelOutput
from kdedge.losses.map_distance import match_spatial_size
from kdedge.tasks import TRAINING_TASKS
from kdedge.training.compute_device import ComputeDevice
from kdedge.training.instrumented_model import InstrumentedModel

if TYPE_CHECKING:
    from kdedge.models.onnx_model import OnnxClassifier

__all__ = ["OnnxTeacher", "NetworkTeacher", "TeacherEnsemble", "Teacher"]


class Teacher(Protocol):
    """Model whose outputs are used as targets, without gradients."""

    @property
    def unexplained(self) -> str | None:
        """Reason why the teacher has no maps, or None."""

    @property
    def most_maps(self) -> int | None:
        """Maximum number of classes the teacher can explain in one call, or None if unlimited."""

    def __call__(self, samples: Tensor, wanted: int | Tensor = 0) -> ModelOutput:
        """Run the teacher; see `InstrumentedModel.forward`."""


class NetworkTeacher:
    """Frozen PyTorch teacher."""

    most_maps = None

    def __init__(self, watched: InstrumentedModel, compute: ComputeDevice) -> None:
        self.watched = watched.eval().requires_grad_(False)
        self.unexplained = watched.unexplained
        self._compute = compute

    def __call__(self, samples: Tensor, wanted: int | Tensor = 0) -> ModelOutput:
        """Run the teacher; see `Teacher`."""
        with torch.no_grad():
            return self.predict(samples, wanted)

    def predict(self, samples: Tensor, wanted: int | Tensor) -> ModelOutput:
        """Forward pass without a gradient context, for compilation."""
        with self._compute.autocast():
            prediction: ModelOutput = self.watched(samples, wanted)
        return prediction


class OnnxTeacher:
    """ONNX teacher with a map of its top class, if the file has one."""

    most_maps = 1

    def __init__(self, model: "OnnxClassifier", name: str) -> None:
        self._model = model
        self.unexplained = None
        if not model.has_map:
            self.unexplained = (
                f"{name} has no output saliency_map. To add one: kdedge export {name} -o explained.onnx, "
                "for the loss term map (--loss ce:0.1,kd:0.9,map:20)."
            )

    def __call__(self, samples: Tensor, wanted: int | Tensor = 0) -> ModelOutput:
        """Run the teacher; see `Teacher`. `wanted` is 0 or 1."""
        logits, maps = self._model(samples)
        if wanted == 0 or maps is None:
            return ModelOutput(logits)
        return ModelOutput(logits, logits.argmax(dim=1, keepdim=True), maps[:, None])


class TeacherEnsemble:
    """Ensemble of teachers with the mean of their predictions and maps.

    Each map is first divided by its L2 norm, since models differ in activation magnitude.
    """

    def __init__(self, teachers: Sequence[Teacher], task: str) -> None:
        self._teachers, self._task = teachers, TRAINING_TASKS[task]
        self.unexplained = next((teacher.unexplained for teacher in teachers if teacher.unexplained), None)
        if self.unexplained is None and any(teacher.most_maps is not None for teacher in teachers):
            self.unexplained = "An .onnx file in an ensemble cannot compute maps of the classes chosen by the ensemble."
        self.most_maps = None

    def __call__(self, samples: Tensor, wanted: int | Tensor = 0) -> ModelOutput:
        """Run all teachers; see `Teacher`."""
        if isinstance(wanted, int):
            logits = self._task.mean([teacher(samples).logits for teacher in self._teachers])
            if wanted == 0 or self.unexplained is not None:
                return ModelOutput(logits)
            wanted = logits.topk(min(wanted, logits.shape[1]), dim=1).indices
        predictions = [teacher(samples, wanted) for teacher in self._teachers]
        logits = self._task.mean([prediction.logits for prediction in predictions])
        total: Tensor | None = None
        for prediction in predictions:
            assert prediction.maps is not None
            unit = F.normalize(prediction.maps.flatten(2), dim=2).reshape(prediction.maps.shape)
            total = unit if total is None else torch.add(*match_spatial_size(total, unit))
        assert total is not None
        return ModelOutput(logits, wanted, total / len(predictions))
