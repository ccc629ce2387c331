"""The teacher of a run, ready to be asked in its validation; whatever is wrong with it is a note in the report."""

from typing import Any

import numpy as np

from kdedge.models.trained_model import TrainedModel
from kdedge.pipelines.onnx_teacher_file import TeacherFile
from kdedge.pipelines.origins import load_origin
from kdedge_export.errors import GraphNotSupported, HeadNotSupported
from kdedge_export.metrics.torch_predictions import Predictions, predict
from kdedge_export.saliency import DEFAULT_METHODS
from kdedge_export.torch_export import Deployed, Plain, deploy
from kdedge_export.validate import Origin, ValidationSet
from kdedge_runtime.errors import KdedgeError, UsageError

__all__ = ["find_teacher"]


def find_teacher(
    taught_by: dict[str, Any] | None, method: str, pictures: ValidationSet, notes: list[str]
) -> tuple[Deployed | Plain | TeacherFile | None, Origin]:
    """Load a run's teacher and try it on one picture.

    Args:
        taught_by: from the run's record; None for one without a teacher.
        method: by which the student is explained.
        pictures: what it will be asked about.
        notes: gets why a teacher is left out, or asked for its answers only.

    Returns:
        The teacher, without its map where it does not allow the method, and where it is from; None where there is
        none that answers.
    """
    if taught_by is None:
        return None, Origin()
    if "members" in taught_by:
        notes.append(f"the teachers are left out, several taught together: {taught_by['source']}")
        return None, Origin()
    try:
        loaded = load_origin(taught_by["source"], taught_by["weights"], taught_by.get("weights_sha256")).model
    except KdedgeError as error:
        notes.append(f"the teacher is left out, it cannot be loaded: {error}")
        return None, Origin()
    teacher: Deployed | Plain | TeacherFile
    if isinstance(loaded, TrainedModel):
        origin = Origin(loaded.spec.name, loaded.origin["weights_sha256"])
        teacher, why = _explained(loaded, method)
    else:
        origin, teacher = Origin(loaded.path.name), TeacherFile.of(loaded)
        why = None if loaded.explains_any else f"{loaded.path.name} gives no map of a class that is named to it"
    try:
        _try(teacher, pictures)
    except Exception as error:  # a network from the user's own file raises what it likes
        notes.append(f"the teacher is left out, it does not answer: {error}")
        return None, Origin()
    if why is not None:
        notes.append(f"the teacher is asked for its answers only: {why}")
    return teacher, origin


def _explained(trained: TrainedModel, method: str) -> tuple[Deployed | Plain, str | None]:
    """The teacher with its map; without one, why not."""
    try:
        # By default each network is explained as its own head is best explained, here as in training.
        return deploy(trained.model, trained.input, None if method in DEFAULT_METHODS else method), None
    except (GraphNotSupported, HeadNotSupported) as error:
        return Plain(trained.model.eval(), trained.input), str(error)


def _try(teacher: Deployed | Plain | TeacherFile, pictures: ValidationSet) -> None:
    """Ask about one picture.

    Raises:
        UsageError: the teacher knows other classes than the student.
    """
    answer: Predictions = predict(teacher, pictures.images[:1], np.zeros(1, dtype=np.int64))
    found, expected = answer.logits.shape[1], len(pictures.labels)
    if found != expected:
        raise UsageError(f"it knows {found} classes, and the student {expected}.")
