"""Loading of teachers: a run folder, a named model with weights, or an `.onnx` file."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdedge.models.artifacts import Artifacts
from kdedge.models.trained_model import TrainedModel, load_trained
from kdedge.models.trees import is_tree_file, is_tree_run
from kdedge.models.zero_shot import ZeroShot
from kdedge_runtime.modalities import InputSpec

if TYPE_CHECKING:
    from kdedge.models.onnx_model import OnnxClassifier
    from kdedge.models.trees.ensemble import TreeEnsemble

__all__ = ["LoadedTeacher", "load_teacher", "reload_teacher"]


@dataclass(frozen=True)
class LoadedTeacher:
    """Loaded teacher with its record."""

    name: str
    model: "TrainedModel | OnnxClassifier | TreeEnsemble"
    record: dict[str, Any]
    """`source` and `weights` to reload it from any folder, with hashes to verify it.

    The hashes are `weights_sha256`, and `code_sha256` for a factory. Published weights have `url` and `license`, and
    zero-shot classifiers `classes` and `prompts`. An `.onnx` file of another framework has its `modality` unless it
    takes images.
    """
    labels: tuple[str, ...] | None
    """Class names, or None if they are not known for certain."""
    classes: int

    @property
    def task(self) -> str:
        """Task of the teacher."""
        return self.model.task

    @property
    def input(self) -> InputSpec:
        """Input of the teacher."""
        return self.model.input


def load_teacher(
    source: str, weights: str | None, zero_shot: ZeroShot | None = None, *, modality: str = "image"
) -> LoadedTeacher:
    """Load a teacher.

    Args:
        source: run folder, `.onnx` file of any framework, file of an ensemble of trees, or model name.
        weights: weights file of a named model; None takes its published weights.
        zero_shot: classes of a zero-shot classifier, named `clip:MODEL/TAG`.
        modality: modality of the samples of an `.onnx` file of another framework.

    Raises:
        UsageError: the run or model does not exist, or the weights do not fit.
        ModelFileError: the file is missing, damaged, or not an image classifier.
    """
    artifacts, path = Artifacts.open(source), Path(source)
    if is_tree_run(artifacts.record) or (artifacts.run is None and is_tree_file(path)):
        from kdedge.models.trees.ensemble import load_tree_file, load_tree_run

        trees = load_tree_file(path) if artifacts.record is None else load_tree_run(path, artifacts.record)
        of_trees = {"source": str(path.resolve()), "weights": None, "weights_sha256": trees.sha256}
        return LoadedTeacher(path.name, trees, of_trees, trees.labels, trees.classes)
    if path.suffix == ".onnx":
        from kdedge.models.onnx_model import OnnxClassifier  # training does not need onnxruntime otherwise

        file = OnnxClassifier.load(path, modality=modality)
        of_file = {"source": str(path.resolve()), "weights": None, "weights_sha256": file.sha256}
        if file.metadata is None and modality != "image":
            of_file["modality"] = modality
        return LoadedTeacher(path.name, file, of_file, file.labels, file.classes)
    trained = load_trained(artifacts, weights=None if weights is None else Path(weights), zero_shot=zero_shot)
    record: dict[str, Any] = {
        "source": str(path.resolve()),
        "weights": None,
        "weights_sha256": trained.origin["weights_sha256"],
    }
    if trained.weights is not None:
        record = trained.weights.record
    if trained.spec.code_sha256 is not None:
        record["code_sha256"] = trained.spec.code_sha256
    if zero_shot is not None:
        record |= {"classes": list(zero_shot.classes), "prompts": list(zero_shot.prompts)}
    known = trained.labels if artifacts.run is not None else None
    return LoadedTeacher(trained.spec.name, trained, record, known, len(trained.labels))


def reload_teacher(record: Mapping[str, Any]) -> LoadedTeacher:
    """Load a teacher again from its record; see `LoadedTeacher.record`.

    Raises:
        UsageError: the teacher no longer exists, or its weights do not fit.
        ModelFileError: the file is missing, damaged, or not an image classifier.
    """
    zero_shot = ZeroShot.of(record["classes"], record["prompts"]) if "classes" in record else None
    return load_teacher(record["source"], record["weights"], zero_shot, modality=record.get("modality", "image"))
