"""Assemble a trainer from settings and data."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from kdedge.config.training_recipe import TrainingRecipe
from kdedge.losses import LOSS_TERMS
from kdedge.models.init_from_teacher import InitSummary, init_from_teacher
from kdedge.models.model_registry import build_model, head_tensors
from kdedge.models.model_spec import ModelSpec
from kdedge.models.weight_files import load_state, read_state
from kdedge.training.augmentation.augmentation_plan import AugmentationPlan
from kdedge.training.batches import Batches
from kdedge.training.compute_device import ComputeDevice
from kdedge.training.distributed import ProcessGroup
from kdedge.training.evaluator import Evaluator
from kdedge.training.image_store import ImageStore
from kdedge.training.instrumented_model import InstrumentedModel
from kdedge.training.layer_pairs import channels, pair_layers
from kdedge.training.objective import Objective
from kdedge.training.step import TrainStep
from kdedge.training.sync_batch_norm import synchronize_batch_norm
from kdedge.training.teachers.targets import CachedTeacher, NoTeacher, OnlineTeacher, TeacherTargets, classes_to_keep
from kdedge.training.teachers.teacher import NetworkTeacher, Teacher
from kdedge.training.teachers.teacher_cache import TeacherCache
from kdedge.training.trainer import Trainer
from kdedge_runtime.errors import UsageError
from kdedge_runtime.modalities.image import ImageInput
from kdedge_runtime.util.progress import ProgressCallback, no_progress

__all__ = ["build_trainer", "cache_key", "build_student", "objective_of"]

CACHE_FORMAT = 1
"""Format version of the teacher cache. Increase it when augmentation changes for the same random numbers."""


def build_student(
    spec: ModelSpec,
    spec_input: ImageInput,
    compute: ComputeDevice,
    group: ProcessGroup,
    *,
    seed: int,
    weights: str | None = None,
    init_from: torch.nn.Module | None = None,
) -> tuple[InstrumentedModel, InitSummary | None]:
    """Build the student with random weights, pretrained weights, or weights selected from its teacher.

    Raises:
        UsageError: the weights do not fit, or no layer of the teacher does.
    """
    torch.manual_seed(seed)  # initial weights are the same when a run is restarted
    model = build_model(spec, spec_input.height)
    if weights is not None:
        load_state(model, read_state(Path(weights)), weights, replaced=head_tensors(spec.name, spec_input.height))
    init_summary = None if init_from is None else init_from_teacher(model, init_from)
    synchronize_batch_norm(model, group)
    return InstrumentedModel(model, spec_input, compute), init_summary


def build_trainer(
    student: InstrumentedModel,
    teacher: Teacher | None,
    images: ImageStore,
    val: ImageStore,
    recipe: TrainingRecipe,
    group: ProcessGroup,
    compute: ComputeDevice,
    *,
    classes: int,
    cache: TeacherCache | None = None,
    progress: ProgressCallback = no_progress,
) -> Trainer:
    """Build the trainer of a run.

    Args:
        student: student with initial weights.
        teacher: teacher, or None to train on labels only.
        images: training images.
        val: validation images, which select the best epoch.
        recipe: training settings; see `TrainingRecipe`.
        group: processes that share every batch.
        compute: device and precision.
        classes: number of classes, K.
        cache: cache of teacher outputs, or None.
        progress: called while the cache is filled.

    Raises:
        UsageError: the student or teacher lacks an output that the loss needs.
    """
    if recipe.batch_size % group.size:
        divisible = (
            recipe.batch_size // group.size * group.size
        )  # not the next multiple above: there may be no more images
        expected = f"Use a divisible --batch-size such as {divisible}." if divisible else "Start fewer processes."
        raise UsageError(
            f"A batch of {recipe.batch_size} images cannot be divided among {group.size} processes. {expected}"
        )
    objective = objective_of(recipe)
    hinted = _watch_layers(student, teacher, recipe, objective)
    _require_possible(student, teacher, recipe, objective)
    train_step = TrainStep(student, objective, recipe, compute, group, hinted)
    views = AugmentationPlan(
        recipe.augmentation, len(images), images.side, compute.device, seed=recipe.seed, kept=recipe.cached_views
    )
    teacher_targets: TeacherTargets = NoTeacher()
    if teacher is not None and objective.uses_teacher:
        teacher_targets = OnlineTeacher(teacher, objective.map_classes, compiled=compute.compiled)
        if cache is not None:
            teacher_targets = CachedTeacher(teacher, objective.map_classes, images, views, cache, group, progress)
    return Trainer(
        train_step,
        Batches(images, views, teacher_targets, recipe, classes, group),
        Evaluator(train_step, val, teacher, cache),
        recipe,
    )


def objective_of(recipe: TrainingRecipe) -> Objective:
    """Return the loss terms of a recipe with their settings."""
    return Objective({name: recipe.settings.get(name, {}) for name in recipe.loss})


def cache_key(
    record: dict[str, Any],
    teacher: Teacher,
    images: ImageStore,
    val: ImageStore,
    recipe: TrainingRecipe,
    compute: ComputeDevice,
    classes: int,
) -> dict[str, Any]:
    """Return everything that a teacher's outputs depend on, as JSON values.

    Args:
        record: record of the teacher, with the hash of its weights.
        teacher: the teacher.
        images: decoded training images.
        val: decoded validation images.
        recipe: recipe with the augmentation and the number of views.
        compute: device and precision; bfloat16 changes the outputs.
        classes: number of classes, K.
    """
    return {
        "format": CACHE_FORMAT,
        "teacher": record.get("members", [record]),
        "train": images.sha256,
        "val": val.sha256,
        "augmentation": asdict(recipe.augmentation),
        "views": recipe.cached_views,
        "map_classes": min(classes_to_keep(teacher, objective_of(recipe).map_classes), classes),
        "bf16": compute.bf16,
    }


def _watch_layers(
    student: InstrumentedModel, teacher: Teacher | None, recipe: TrainingRecipe, objective: Objective
) -> list[tuple[int, int]]:
    """Capture the features of compared layers, and return the channels of projected ones."""
    if not objective.compares_layers:
        if recipe.layers:
            comparing = ", ".join(name for name, term in LOSS_TERMS.items() if term.features)
            raise UsageError(
                f"[layers] in the recipe sets the layers for {comparing}, but the loss {','.join(recipe.loss)} has "
                "none of these terms. Remove the table, or add one of the terms."
            )
        return []
    names = " and ".join(name for name in recipe.loss if LOSS_TERMS[name].features)
    if not isinstance(teacher, NetworkTeacher):
        raise UsageError(
            f"The loss term {names} compares intermediate layers, so it needs a single PyTorch teacher. "
            "Expected a run folder, a model name with weights, or a loss without this term."
        )
    if recipe.cached_views:
        raise UsageError(
            f"The loss term {names} compares intermediate layers, which are too large to cache. Remove --cache-teacher."
        )
    pairs = pair_layers(student, teacher.watched, recipe.layers)
    ours, theirs = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    student.watch(ours)
    teacher.watched.watch(theirs)
    if not any(LOSS_TERMS[name].projects for name in recipe.loss):
        return []
    return list(zip(channels(student, ours), channels(teacher.watched, theirs), strict=True))


def _require_possible(
    student: InstrumentedModel, teacher: Teacher | None, recipe: TrainingRecipe, objective: Objective
) -> None:
    if teacher is None and objective.uses_teacher:
        raise UsageError(f"The loss {','.join(recipe.loss)} needs a teacher. Use kdedge distill, or --loss ce.")
    terms = ", ".join(objective.map_terms)
    for role, model in (("student", student), ("teacher", teacher)):
        if terms and model is not None and model.unexplained is not None:
            raise UsageError(
                f"The loss term {terms} compares saliency maps, but the {role} has none: "
                f"{model.unexplained} To distill without maps: --loss ce:0.1,kd:0.9."
            )
    if terms and teacher is not None and teacher.most_maps is not None and objective.map_classes > teacher.most_maps:
        raise UsageError(
            f"An .onnx teacher has a map of its top class only, but the loss term {terms} compares maps of several "
            "classes. Use --loss ce:0.1,kd:0.9,map:20."
        )
    if recipe.cached_views and not objective.uses_teacher:
        raise UsageError(
            f"No term of the loss {','.join(recipe.loss)} uses the teacher, so there are no outputs to cache. Remove "
            "--cache-teacher, or add such a term: --loss ce:0.1,kd:0.9."
        )
    if recipe.cached_views and recipe.augmentation.mixes:
        raise UsageError(
            "Mixed images differ in every batch, so the teacher's outputs cannot be cached. "
            "Remove --cache-teacher, or use a recipe without mixup and cutmix: --recipe default."
        )
