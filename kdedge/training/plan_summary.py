"""Summary of a resolved training plan."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from kdedge.config.resolved_config import ResolvedConfig
from kdedge.config.train_config import TrainConfig
from kdedge.data import UNLABELED
from kdedge.losses import LOSS_TERMS
from kdedge.modalities import TRAINING_MODALITIES
from kdedge.models.init_from_teacher import InitSummary
from kdedge.models.model_spec import ModelSpec
from kdedge.models.network_weights import NetworkWeights
from kdedge.models.pretrained import assumed_input, published_name
from kdedge.models.teacher_source import LoadedTeacher
from kdedge.models.trained_model import TrainedModel
from kdedge.models.trees.ensemble import TreeEnsemble
from kdedge.tasks import TRAINING_TASKS
from kdedge.training.augmentation import Augmentation
from kdedge.training.batches import Batches
from kdedge.training.evaluator import Evaluator
from kdedge.training.sample_store import WindowCount
from kdedge.training.teachers.confidence import TeacherConfidence
from kdedge.training.trainer import Trainer
from kdedge.training.unlabeled_samples import UnlabeledPart
from kdedge_runtime.tasks import TASKS
from kdedge_runtime.util.counts import counted, grid_text

__all__ = ["summarize_plan"]


def summarize_plan(
    request: TrainConfig,
    recipe_name: str,
    trainer: Trainer,
    teachers: Sequence[LoadedTeacher],
    spec: ModelSpec,
    start: NetworkWeights | None,
    init_summary: InitSummary | None,
    windows: WindowCount,
    labels: Sequence[str],
    unlabeled: UnlabeledPart | None = None,
    confidence: TeacherConfidence | None = None,
) -> list[tuple[str, str]]:
    """Return the resolved plan as (name, value with its reason), printed before training."""

    def reason(option: Any, why: str) -> str:
        return "as requested" if option is not None else why

    train_step, batches, evaluator, config = trainer.train_step, trainer.batches, trainer.evaluator, trainer.config
    val = evaluator.val
    parameters = sum(parameter.numel() for parameter in train_step.student.model.parameters())
    has_classes = TASKS[evaluator.task].has_classes
    classes = f", {counted(batches.classes, 'class', 'classes')}" if has_classes else ""
    lines = [
        ("samples", f"{_training(batches, unlabeled)}, {len(val):,} for validation{classes}"),
        *_windows(windows),
        *_unlabeled(unlabeled, confidence),
        ("model", f"{spec.name}, {parameters / 1e6:.2f} M parameters"),
        *_weights(request, start, init_summary),
        *_teachers(teachers, parameters, evaluator, labels),
    ]
    if spec.embedding is not None:
        lines.append(("task", f"embedding of {spec.embedding} values; one prototype per class, from the teacher"))
    positions = train_step.student.map_size
    as_teacher = teachers and teachers[0].classes > 0
    why_size = "from the data and the device" if start is None else "as the weights expect"
    why_size = "as the teacher's" if as_teacher else why_size
    lines.append(("input", f"{train_step.student.spec.summary} ({reason(request.size, why_size)})"))
    assumed = _assumed_input(teachers, start, spec.name)
    if assumed is not None:
        lines.append(("preprocessing", assumed))
    if positions is not None:
        removed = "early strides removed" if spec.fresh_stem else "last strides removed and later kernels dilated"
        stem = f"{removed}, {spec.stride_factor} times finer" if spec.stride_factor > 1 else "stem unchanged"
        lines.append(("map", f"{grid_text(*positions)} ({reason(request.output_stride, stem)})"))
    lines += [
        ("recipe", f"{recipe_name} ({reason(request.recipe, _why_recipe(request, trainer, teachers, start))})"),
        ("loss", _loss(config)),
        ("augmentation", _augmentation(batches.augmentation)),
    ]
    only_head = config.fit_head and config.epochs == 1
    if config.fit_head:
        lines.append(("head", f"fitted on frozen features in epoch 1{'; other layers stay' * only_head}"))
    if config.cached_views:
        lines.append(("cache", f"teacher outputs are cached for {counted(config.cached_views, 'view')} of each sample"))
    why_epochs = "as requested" if request.epochs is not None else "from recipe, data and device"
    processes, optimizer = train_step.group.size, {"sgd": "SGD", "adamw": "AdamW"}[config.optimizer]
    steps = f"batch size {config.batch_size}, {optimizer} with learning rate {config.learning_rate:g}"
    schedule = [] if only_head else [("schedule", f"{counted(config.epochs, 'epoch')} ({why_epochs}), {steps}")]
    return [
        *lines,
        *schedule,
        (
            "device",
            f"{train_step.compute.name}, {'bfloat16' if train_step.compute.bf16 else 'float32'}"
            + (f", {processes} processes" if processes > 1 else ""),
        ),
    ]


def _why_recipe(
    request: TrainConfig, trainer: Trainer, teachers: Sequence[LoadedTeacher], start: NetworkWeights | None
) -> str:
    if start is not None:
        return "from trained weights"
    kind = trainer.train_step.student.spec.kind
    if TRAINING_MODALITIES[kind].default_recipe(request.kind) is not None:
        return f"for {kind} samples"
    return "from the number of samples" if teachers else "without a teacher"


def _training(batches: Batches, unlabeled: UnlabeledPart | None) -> str:
    count = len(batches.samples)
    if unlabeled is None:
        return f"{count:,} for training"
    if not unlabeled.locations:
        return f"{count:,} without labels for training"
    labeled = int((batches.samples.targets != UNLABELED).sum())  # of those that can be read
    return f"{labeled:,} labeled and {count - labeled:,} unlabeled for training"


def _windows(count: WindowCount) -> list[tuple[str, str]]:
    return [("windows", f"{count.windows:,}, cut from {counted(count.stored, 'file')}")] if count.windows else []


def _unlabeled(unlabeled: UnlabeledPart | None, confidence: TeacherConfidence | None) -> list[tuple[str, str]]:
    lines = [] if unlabeled is None else [("unlabeled", unlabeled.selection.summary)]
    return lines if confidence is None else [*lines, ("confidence", confidence.summary)]


def _teachers(
    teachers: Sequence[LoadedTeacher], parameters: int, evaluator: Evaluator, labels: Sequence[str]
) -> list[tuple[str, str]]:
    if not teachers:
        return []
    metrics = evaluator.teacher_metrics
    right = _features_only(teachers) if evaluator.teacher is None else "not tested without labels"
    if metrics:
        right = f"{TRAINING_TASKS[evaluator.task].summary(metrics, labels)} here"
    if len(teachers) > 1:
        return [("teachers", f"{' + '.join(teacher.name for teacher in teachers)}, ensemble {right}")]
    (teacher,) = teachers
    if isinstance(teacher.model, TreeEnsemble):
        return [("teacher", f"{teacher.name}, trees of {teacher.model.bytes / 1e6:.2f} MB, {right}")]
    if not isinstance(teacher.model, TrainedModel):
        fed = teacher.model.fed
        return [("teacher", f"{teacher.name}, {right}"), *([] if fed is None else [("teacher input", fed)])]
    count = teacher.model.parameters
    lines = [
        (
            "teacher",
            f"{teacher.name}, {count / 1e6:.2f} M parameters ({_times(count / parameters)} the student's), {right}",
        )
    ]
    if teacher.model.zero_shot is not None:
        lines.append(("classes", teacher.model.zero_shot.summary))
    weights = teacher.model.weights
    return [*lines, ("weights", f"of the teacher: {weights.summary}")] if weights is not None else lines


def _features_only(teachers: Sequence[LoadedTeacher]) -> str:
    return f"only its features at {teachers[0].input.summary} are compared"


def _times(ratio: float) -> str:
    return f"{ratio:.1f} times" if ratio >= 0.95 else f"{ratio:.2g} times"


def _weights(
    request: TrainConfig, start: NetworkWeights | None, init_summary: InitSummary | None
) -> list[tuple[str, str]]:
    """Return the origin of the initial weights, which are random only with a reason."""
    if start is not None:
        return [("weights", start.summary)]
    if init_summary is not None:
        return [("weights", f"{init_summary.copied} of {init_summary.total} tensors from the teacher, others random")]
    why = "as requested" if request.pretrained is False else "the network has no published weights"
    return [("weights", f"random ({why})")]


def _assumed_input(teachers: Sequence[LoadedTeacher], start: NetworkWeights | None, name: str) -> str | None:
    """Return the assumption about preprocessing, if the weights do not specify it; None otherwise."""
    if teachers:
        model = teachers[0].model
        return model.assumed_input if isinstance(model, TrainedModel) else None
    return None if start is None else assumed_input(published_name(name, start.file))


def _loss(config: ResolvedConfig) -> str:
    terms = []
    for name, weight in config.loss.items():
        measured = " (measured)" if name in config.measured else ""
        settings = ", ".join(f"{option} {value:g}" for option, value in config.settings.get(name, {}).items())
        terms.append(f"{weight:g}·{name}" + (f"({settings})" if settings else "") + measured)
    softened = any(LOSS_TERMS[name].uses_temperature for name in config.loss)
    return " + ".join(terms) + (f", temperature {config.temperature:g}" if softened else "")


def _augmentation(augmentation: Augmentation) -> str:
    parts = [
        name if value is True else f"{name} {value}" if isinstance(value, str) else f"{name} {value:g}"
        for name, value in asdict(augmentation).items()
        if value
    ]
    return ", ".join(parts) or "none"
