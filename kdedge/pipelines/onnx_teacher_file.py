"""A teacher's `.onnx` file as a model for validation."""

from dataclasses import asdict, dataclass

import numpy as np
import torch

from kdedge.models.onnx_model import OnnxClassifier
from kdedge_runtime import Model
from kdedge_runtime.metadata import Metadata, Outputs
from kdedge_runtime.modalities import parse_input
from kdedge_runtime.model import Explanation
from kdedge_runtime.util.arrays import Pixels, softmax

__all__ = ["OnnxTeacherFile"]


@dataclass(frozen=True)
class OnnxTeacherFile(Model):
    """Teacher file of any framework that accepts images of any size, as in training."""

    teacher: OnnxClassifier

    @classmethod
    def of(cls, teacher: OnnxClassifier) -> "OnnxTeacherFile":
        """Wrap a teacher. A file of another framework has only probed metadata, and class indices as labels."""
        metadata = teacher.metadata
        if metadata is None:
            numbers = tuple(str(index) for index in range(teacher.classes))
            named = parse_input(asdict(teacher.input) | {"name": teacher.feed.name})
            metadata = Metadata(numbers, named, Outputs("none"))
        return cls(teacher.path, metadata, teacher.probes["CPUExecutionProvider"].session, teacher)

    def predict(self, images: Pixels, class_index: int | None = None, *, explained: bool = True) -> Explanation:
        """Predict as `Model.predict`; images of another size are resampled, and maps may be missing for a given class.

        Raises:
            ModelFileError: the file cannot be run on the images.
        """
        predictions, maps = self.teacher(torch.from_numpy(images), class_index)
        logits = predictions.numpy()
        classes = logits.argmax(axis=1) if class_index is None else np.full(len(images), class_index)
        saliency_map = maps.numpy() if maps is not None and explained else None
        probabilities = softmax(np.float32(1 / self.metadata.temperature) * logits)
        return Explanation(logits, probabilities, classes, saliency_map)
