"""The teachers that a user names: checked against the data, and found again when a run goes on."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kdedge.config.train_config import Request
from kdedge.data import Collection
from kdedge.models.model_source import network_name
from kdedge.models.run_folder import is_run
from kdedge.models.teacher_source import LoadedTeacher, load_teacher
from kdedge.models.trained_model import TrainedModel
from kdedge.training.compute_device import Compute
from kdedge.training.instrumented_model import Watched
from kdedge.training.teachers.teacher import FileTeacher, NetworkTeacher, SeveralTeachers, Teacher
from kdedge_runtime.errors import UsageError

__all__ = ["as_teacher", "heritage", "load_teachers", "reload_teachers", "teacher_record"]


def load_teachers(request: Request, data: Collection) -> list[LoadedTeacher]:
    """Load the teachers of a request.

    Raises:
        UsageError: there is no such teacher, it is untrained, or it knows other classes than the data has.
    """
    weights = list(request.teacher_weights)
    teachers = []
    for source in request.teacher:
        path = Path(source)
        if is_run(path) or path.suffix == ".onnx":
            teachers.append(load_teacher(source, None))
        elif weights:
            teachers.append(load_teacher(source, weights.pop(0)))
        else:
            name = network_name(source)
            raise UsageError(f"The teacher {name} has random weights. Give it trained ones: --teacher-weights FILE.")
    if weights:
        raise UsageError(
            f"There is no teacher for the weights {', '.join(weights)}: run folders and .onnx files have their own. "
            "Expected one --teacher-weights for each --teacher that is the name of a network."
        )
    for teacher in teachers:
        _require_same_classes(teacher, data)
    return teachers


def reload_teachers(record: dict[str, Any] | None, run: Path) -> list[LoadedTeacher]:
    """The teachers of a run that goes on, from its record.

    Raises:
        UsageError: one of them is not there any more, or has changed.
    """
    teachers = []
    for member in () if record is None else record.get("members", [record]):
        teacher = load_teacher(member["source"], member["weights"])
        # Not its name: of published weights that were not known by their hash yet, it tells more today.
        if any(teacher.record.get(what) != member.get(what) for what in ("weights_sha256", "code_sha256")):
            raise UsageError(
                f"The teacher {member['source']} has changed since {run} was started, so it cannot continue "
                "exactly. Start another run with another --out."
            )
        teachers.append(teacher)
    return teachers


def teacher_record(teachers: Sequence[LoadedTeacher]) -> dict[str, Any] | None:
    """What `run.json` keeps of the teachers; None without any."""
    if len(teachers) == 1:
        return dict(teachers[0].record)
    if not teachers:
        return None
    sources = " + ".join(str(teacher.record["source"]) for teacher in teachers)
    members = [teacher.record for teacher in teachers]
    return {"source": sources, "weights": None, "weights_sha256": None, "members": members}


def as_teacher(teachers: Sequence[LoadedTeacher], compute: Compute) -> Teacher | None:
    """One teacher that speaks for all, on the device; None without any."""
    ready: list[Teacher] = []
    for teacher in teachers:
        if isinstance(teacher.model, TrainedModel):
            ready.append(NetworkTeacher(Watched(teacher.model.model, teacher.model.input, compute), compute))
        else:
            ready.append(FileTeacher(teacher.model, teacher.name))
    if not ready:
        return None
    return ready[0] if len(ready) == 1 else SeveralTeachers(ready)


def heritage(teachers: Sequence[LoadedTeacher]) -> TrainedModel:
    """The model whose weights a student can inherit: that of the first teacher.

    Raises:
        UsageError: there is no teacher, or it is a model file.
    """
    if not teachers or not isinstance(teachers[0].model, TrainedModel):
        raise UsageError("--init teacher needs a first teacher that is a PyTorch network: a run folder, or a name.")
    return teachers[0].model


def _trained_on(teacher: LoadedTeacher, data: Collection) -> str:
    """How to get one, starting from the weights at hand where they are a network's."""
    name, weights = teacher.record["source"], teacher.record["weights"]
    command = shlex.join(["kdedge", "train", data.source, "--model"])
    return f": {command} " + ("MODEL" if weights is None else shlex.join([str(name), "--weights", weights]))


def _require_same_classes(teacher: LoadedTeacher, data: Collection) -> None:
    if teacher.classes != len(data.labels):
        raise UsageError(
            f"The teacher {teacher.record['source']} knows {teacher.classes} classes, but {data.source} has "
            f"{len(data.labels)}. Expected a teacher trained on these classes{_trained_on(teacher, data)}."
        )
    if teacher.labels is not None and teacher.labels != data.labels:
        odd = sorted(set(teacher.labels) ^ set(data.labels))
        difference = f"{', '.join(odd[:6])} are not in both" if odd else "they are in another order"
        raise UsageError(
            f"The teacher {teacher.record['source']} was trained on other classes than those in {data.source} "
            f"({difference}). Expected a teacher trained on these classes."
        )
