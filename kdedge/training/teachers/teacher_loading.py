"""Teachers named by the user: loaded, checked against the data, and reloaded on resume."""

import shlex
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kdedge.config.train_config import TrainConfig
from kdedge.data import DatasetIndex
from kdedge.models.run_folder import is_run
from kdedge.models.teacher_source import LoadedTeacher, load_teacher, reload_teacher
from kdedge.models.trained_model import TrainedModel
from kdedge.models.trees import is_tree_file
from kdedge.models.trees.ensemble import TreeEnsemble
from kdedge.models.zero_shot import ZeroShot, is_clip
from kdedge.training.compute_device import ComputeDevice
from kdedge.training.instrumented_model import InstrumentedModel
from kdedge.training.objective import uses_predictions
from kdedge.training.teachers.teacher import NetworkTeacher, OnnxTeacher, Teacher, TeacherEnsemble
from kdedge.training.teachers.tree_teacher import TreeTeacher
from kdedge_runtime.errors import UsageError
from kdedge_runtime.tasks import TASKS

__all__ = ["as_teacher", "init_source", "load_teachers", "reload_teachers", "teacher_labels", "teacher_record"]


def load_teachers(request: TrainConfig, data: DatasetIndex, terms: Collection[str]) -> list[LoadedTeacher]:
    """Load the teachers of a request.

    Args:
        request: training options.
        data: dataset index.
        terms: names of the loss terms. If only features are compared, teachers may have different classes.

    Raises:
        UsageError: A teacher does not exist, is untrained, or its classes differ from those of the data.
    """
    weights = list(request.teacher_weights)
    teachers = []
    for source in request.teacher:
        path = Path(source)
        zero_shot = _zero_shot(request, data) if is_clip(source) else None
        if is_run(path) or path.suffix == ".onnx" or is_tree_file(path):
            teachers.append(load_teacher(source, None, modality=data.modality))
        else:
            teachers.append(load_teacher(source, weights.pop(0) if weights else None, zero_shot))
    if (request.classes or request.prompts) and not any(map(is_clip, request.teacher)):
        raise UsageError(
            "--classes and --prompt name the classes of a zero-shot teacher, but no teacher is one. Remove them, or "
            "use --teacher clip:MODEL/TAG."
        )
    if weights:
        raise UsageError(
            f"There is no teacher for the weights {', '.join(weights)}: run folders and .onnx files have their own. "
            "Expected one --teacher-weights for each --teacher given by model name."
        )
    if data.is_unlabeled and teachers:
        data = replace(data, labels=teacher_labels(teachers[0]))
    has_embedding = TASKS[data.task].has_embedding
    if has_embedding and len(teachers) > 1:
        raise UsageError(f"--task {data.task} compares the embeddings of one teacher. Give a single --teacher.")
    for teacher in teachers:
        data.require(teacher.input, teacher.task, f"The teacher {teacher.record['source']}")
        if not uses_predictions(terms) or has_embedding:
            continue  # any classifier has an embedding, also one of other classes
        _require_same_classes(teacher, data)
        if TASKS[teacher.task].has_embedding:
            raise UsageError(
                f"The teacher {teacher.record['source']} has similarities in place of class probabilities. Distill its "
                "embedding with --task embedding, or compare its features with --loss ce,rkd."
            )
    return teachers


def reload_teachers(record: dict[str, Any] | None, run: Path) -> list[LoadedTeacher]:
    """Reload the teachers of a resumed run from its record.

    Raises:
        UsageError: A teacher no longer exists, or has changed.
    """
    teachers = []
    for member in () if record is None else record.get("members", [record]):
        teacher = reload_teacher(member)
        # Names are not compared: weights unknown by hash when recorded may have a more specific name now.
        if any(teacher.record.get(what) != member.get(what) for what in ("weights_sha256", "code_sha256")):
            raise UsageError(
                f"The teacher {member['source']} has changed since {run} was started, so the run cannot be resumed "
                "exactly. Start a new run with another --out."
            )
        teachers.append(teacher)
    return teachers


def teacher_record(teachers: Sequence[LoadedTeacher]) -> dict[str, Any] | None:
    """Return the entry of the teachers in `run.json`, or None without teachers."""
    if len(teachers) == 1:
        return dict(teachers[0].record)
    if not teachers:
        return None
    sources = " + ".join(str(teacher.record["source"]) for teacher in teachers)
    members = [teacher.record for teacher in teachers]
    return {"source": sources, "weights": None, "weights_sha256": None, "members": members}


def teacher_labels(teacher: LoadedTeacher) -> tuple[str, ...]:
    """Return the class names of a teacher, which are those of samples without labels.

    Raises:
        UsageError: they are not known.
    """
    labels = teacher.labels
    if isinstance(teacher.model, TrainedModel) and teacher.model.zero_shot is not None:
        labels = teacher.model.zero_shot.classes
    if labels is None or teacher.classes == 0:
        raise UsageError(
            f"The samples have no class folders, and the class names of the teacher {teacher.record['source']} are not "
            "known. Expected a run folder, an .onnx file with class names, or clip:MODEL/TAG with --classes."
        )
    return labels


def as_teacher(teachers: Sequence[LoadedTeacher], compute: ComputeDevice) -> Teacher | None:
    """Combine the teachers into one on the device, or return None without teachers."""
    ready: list[Teacher] = []
    for teacher in teachers:
        if isinstance(teacher.model, TrainedModel):
            model, is_headless = teacher.model, teacher.classes == 0
            watched = InstrumentedModel(model.model, model.input, compute, is_headless=is_headless)
            ready.append(NetworkTeacher(watched, compute))
        elif isinstance(teacher.model, TreeEnsemble):
            ready.append(TreeTeacher(teacher.model))
        else:
            ready.append(OnnxTeacher(teacher.model, teacher.name))
    if not ready:
        return None
    return ready[0] if len(ready) == 1 else TeacherEnsemble(ready, teachers[0].task)


def init_source(teachers: Sequence[LoadedTeacher]) -> TrainedModel:
    """Return the model that a student can inherit weights from: that of the first teacher.

    Raises:
        UsageError: there is no teacher, or it is a model file.
    """
    if not teachers or not isinstance(teachers[0].model, TrainedModel):
        raise UsageError("--init teacher needs a first teacher that is a PyTorch model: a run folder, or a model name.")
    return teachers[0].model


def _zero_shot(request: TrainConfig, data: DatasetIndex) -> ZeroShot:
    """Return the classes of a zero-shot teacher: those of the request, or the names of the data's classes.

    Raises:
        UsageError: their number differs from the data's.
    """
    classes = request.classes or tuple(label.replace("_", " ") for label in data.labels)
    if not classes:
        raise UsageError(
            f"{data.source} has no class folders, so the classes of a zero-shot teacher must be given: --classes A,B,C."
        )
    if data.labels and len(classes) != len(data.labels):
        raise UsageError(
            f"--classes names {len(classes)} classes, but {data.source} has {len(data.labels)}. Expected one name for "
            f"each, in this order: {','.join(data.labels)}."
        )
    return ZeroShot.of(classes, request.prompts)


def _trained_on(teacher: LoadedTeacher, data: DatasetIndex) -> str:
    """Return the command that trains such a teacher, from the given weights if possible."""
    name, weights = teacher.record["source"], teacher.record["weights"]
    target = [] if data.target is None else ["--target", data.target]
    command = shlex.join(["kdedge", "train", data.source, *target, "--model"])
    if "url" in teacher.record:
        return f": {command} {name}"
    return f": {command} " + ("MODEL" if weights is None else shlex.join([str(name), "--weights", weights]))


def _odd_classes(teacher: LoadedTeacher, data: DatasetIndex) -> str:
    """Name the classes that only one of both has; empty for a teacher without names."""
    known = teacher.labels or data.labels
    odd = {
        "only the teacher": [label for label in known if label not in data.labels],
        "only the data": [label for label in data.labels if label not in known],
    }
    parts = [f"{which} has {', '.join(labels[:6])}" for which, labels in odd.items() if labels]
    return f" ({'; '.join(parts)})" if parts else ""


def _require_same_classes(teacher: LoadedTeacher, data: DatasetIndex) -> None:
    if teacher.classes == 0:
        raise UsageError(
            f"The teacher {teacher.record['source']} is an encoder without classes, so it has neither predictions nor "
            f"maps. Compare its pooled features with --loss ce,hint, or train a teacher from it"
            f"{_trained_on(teacher, data)}."
        )
    if teacher.classes != len(data.labels):
        raise UsageError(
            f"The teacher {teacher.record['source']} has {teacher.classes} classes, but {data.source} has "
            f"{len(data.labels)}{_odd_classes(teacher, data)}. Expected a teacher trained on these classes"
            f"{_trained_on(teacher, data)}. "
            "A loss of features only accepts any classes: --loss ce,hint."
        )
    if teacher.labels is not None and teacher.labels != data.labels:
        odd = sorted(set(teacher.labels) ^ set(data.labels))
        difference = f"{', '.join(odd[:6])} are not in both" if odd else "their order differs"
        raise UsageError(
            f"The teacher {teacher.record['source']} was trained on classes that differ from those in {data.source} "
            f"({difference}). Expected a teacher trained on these classes."
        )
