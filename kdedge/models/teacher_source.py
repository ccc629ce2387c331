"""A teacher from wherever the user has it: a run folder, a network with its weights, or an `.onnx` file."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kdedge.models.run_folder import is_run
from kdedge.models.trained_model import TrainedModel, load_trained
from kdedge_runtime.metadata import ImageInput

if TYPE_CHECKING:
    from kdedge.models.onnx_model import OnnxTeacher

__all__ = ["LoadedTeacher", "load_teacher"]


@dataclass(frozen=True)
class LoadedTeacher:
    """A teacher that is ready to be asked."""

    name: str
    model: "TrainedModel | OnnxTeacher"
    record: dict[str, str | None]
    """`source` and `weights`, to find it again from any folder.

    `weights_sha256`, and of a factory `code_sha256`, to know that it is the same.
    """
    labels: tuple[str, ...] | None
    """Class names, where the teacher knows them for certain."""
    classes: int

    @property
    def input(self) -> ImageInput:
        """What it looks at."""
        return self.model.input


def load_teacher(source: str, weights: str | None) -> LoadedTeacher:
    """Load a teacher.

    Args:
        source: a run folder, an `.onnx` file of any framework, or the name of a network.
        weights: the file of a network's weights.

    Raises:
        UsageError: there is no such run or model, or the weights do not fit.
        ModelFileError: the file is missing or damaged, or it is no image classifier.
    """
    path = Path(source)
    if path.suffix == ".onnx":
        from kdedge.models.onnx_model import OnnxTeacher  # training needs no onnxruntime otherwise

        file = OnnxTeacher.load(path)
        record = {"source": str(path.resolve()), "weights": None, "weights_sha256": file.sha256}
        return LoadedTeacher(path.name, file, record, file.labels, file.classes)
    trained = load_trained(source, weights=None if weights is None else Path(weights))
    record = {
        "source": str(path.resolve()) if is_run(path) else trained.spec.name,
        "weights": None if weights is None else str(Path(weights).resolve()),
        "weights_sha256": trained.origin["weights_sha256"],
    }
    if trained.spec.code_sha256 is not None:
        record["code_sha256"] = trained.spec.code_sha256
    known = trained.labels if is_run(path) else None
    return LoadedTeacher(trained.spec.name, trained, record, known, len(trained.labels))
