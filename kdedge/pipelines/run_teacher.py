"""Load a run's teacher for validation. Failures are reported as notes, not errors."""

from typing import Any, TypeAlias

import numpy as np

from kdedge.models.trained_model import TrainedModel
from kdedge.models.trees.ensemble import TreeEnsemble
from kdedge.models.trees.tree_module import TreeModule
from kdedge.pipelines.onnx_teacher_file import OnnxTeacherFile
from kdedge.pipelines.origins import load_origin
from kdedge_export.errors import GraphNotSupported, HeadNotSupported
from kdedge_export.metrics.torch_predictions import Predictions, predict
from kdedge_export.saliency import DEFAULT_METHODS
from kdedge_export.torch_export import ClassifierOnly, ExportableModel, wrap_for_export
from kdedge_export.validation import Origin, ValidationSet
from kdedge_runtime.errors import KdedgeError, UsageError

__all__ = ["RunTeacher", "load_run_teacher", "other_task"]

RunTeacher: TypeAlias = ExportableModel | ClassifierOnly | OnnxTeacherFile | TreeModule
"""Teacher as a model that is validated beside its student."""


def load_run_teacher(
    taught_by: dict[str, Any] | None, task: str, method: str, samples: ValidationSet, notes: list[str]
) -> tuple[RunTeacher | None, Origin]:
    """Load a run's teacher and test it on one sample.

    Args:
        taught_by: teacher entry of the run's record; None for a run without a teacher.
        task: task of the run.
        method: saliency method of the student.
        samples: validation samples.
        notes: receives the reason if the teacher is excluded or has no map.

    Returns:
        The teacher, without its map if it does not support the method, and its origin. None if no teacher is usable.
    """
    if taught_by is None:
        return None, Origin()
    if "members" in taught_by:
        notes.append(f"the teachers are excluded, because the run has an ensemble of teachers: {taught_by['source']}")
        return None, Origin()
    try:
        loaded = load_origin(taught_by).model
    except KdedgeError as error:
        notes.append(f"the teacher is excluded, it cannot be loaded: {error}")
        return None, Origin()
    if loaded.task != task:
        notes.append(f"the teacher is excluded, {other_task(loaded.task, task)}")
        return None, Origin()
    if isinstance(loaded, TrainedModel) and len(loaded.labels) != len(samples.labels):
        classes = f"{len(loaded.labels)} classes" if loaded.labels else "no classes"
        notes.append(f"the teacher is excluded, it has {classes} and taught only features")
        return None, Origin()
    teacher: RunTeacher
    if isinstance(loaded, TreeEnsemble):
        origin, teacher, why = Origin(loaded.path.name, loaded.sha256, loaded.bytes), TreeModule(loaded), None
    elif isinstance(loaded, TrainedModel):
        origin = Origin(loaded.spec.name, loaded.origin["weights_sha256"])
        teacher, why = _explained(loaded, method)
    else:
        origin, teacher = Origin(loaded.path.name), OnnxTeacherFile.of(loaded)
        why = None if loaded.explains_any else f"{loaded.path.name} has no map of a selectable class"
    try:
        _try(teacher, samples)
    except Exception as error:  # a model from the user's own file may raise any exception
        notes.append(f"the teacher is excluded, it fails on the samples: {error}")
        return None, Origin()
    if why is not None:
        notes.append(f"only the teacher's predictions are evaluated, not its maps: {why}")
    return teacher, origin


def other_task(teacher: str, run: str) -> str:
    """Explain why a teacher of another task is not compared with the student."""
    return f"because its task is {teacher}, and that of the student is {run}"


def _explained(trained: TrainedModel, method: str) -> tuple[ExportableModel | ClassifierOnly, str | None]:
    """Wrap the teacher with its map, or without one and with the reason."""
    try:
        # By default each model uses the best method for its own head, as in training.
        return wrap_for_export(trained.model, trained.input, None if method in DEFAULT_METHODS else method), None
    except (GraphNotSupported, HeadNotSupported) as error:
        return ClassifierOnly(trained.model.eval(), trained.input), str(error)


def _try(teacher: RunTeacher, samples: ValidationSet) -> None:
    """Run the teacher on one sample.

    Raises:
        UsageError: the number of classes differs from the student's.
    """
    prediction: Predictions = predict(teacher, samples.samples[:1], np.zeros(1, dtype=np.int64))
    found, expected = prediction.logits.shape[1], len(samples.labels)
    if found != expected:
        raise UsageError(f"it has {found} classes, and the student {expected}.")
