"""From settings and data to a trainer that is ready for its first step."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from kdedge.config.training_recipe import Recipe
from kdedge.models.init_from_teacher import Inherited, inherit
from kdedge.models.model_registry import build, head_tensors
from kdedge.models.model_spec import ModelSpec
from kdedge.models.weight_files import load_state, read_state
from kdedge.training.augmentation.augmentation_plan import Views
from kdedge.training.batches import Batches
from kdedge.training.compute_device import Compute
from kdedge.training.distributed import Group
from kdedge.training.evaluator import Examiner
from kdedge.training.image_store import Images
from kdedge.training.instrumented_model import Watched
from kdedge.training.layer_pairs import channels, pair_layers
from kdedge.training.objective import Objective
from kdedge.training.step import Learner
from kdedge.training.sync_batch_norm import synchronise
from kdedge.training.teachers.targets import AskTeacher, Guidance, NoTeacher, Remembered, classes_to_keep
from kdedge.training.teachers.teacher import NetworkTeacher, Teacher
from kdedge.training.teachers.teacher_cache import AnswerCache
from kdedge.training.trainer import Trainer
from kdedge_runtime.errors import UsageError
from kdedge_runtime.metadata import ImageInput

__all__ = ["assemble", "cache_key", "first_student", "objective_of"]

ANSWERS_FORMAT = 1
"""To be raised when pictures are augmented in another way from the same numbers: older answers do not fit any more."""


def first_student(
    spec: ModelSpec,
    spec_input: ImageInput,
    compute: Compute,
    group: Group,
    *,
    seed: int,
    weights: str | None = None,
    heir_of: torch.nn.Module | None = None,
) -> tuple[Watched, Inherited | None]:
    """The student before its first step: random, or from trained weights, or from its teacher's (and from which).

    Raises:
        UsageError: the weights do not fit, or nothing of the teacher does.
    """
    torch.manual_seed(seed)  # first weights are the same whether the run starts, or starts again
    model = build(spec, spec_input.height)
    if weights is not None:
        load_state(model, read_state(Path(weights)), weights, replaced=head_tensors(spec.name, spec_input.height))
    inherited = None if heir_of is None else inherit(model, heir_of)
    synchronise(model, group)
    return Watched(model, spec_input, compute), inherited


def assemble(
    student: Watched,
    teacher: Teacher | None,
    images: Images,
    val: Images,
    recipe: Recipe,
    group: Group,
    compute: Compute,
    *,
    classes: int,
    cache: AnswerCache | None = None,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Trainer:
    """Put a trainer together.

    Args:
        student: at its beginning.
        teacher: None to learn from labels alone.
        images: pictures to train on.
        val: pictures to choose the best epoch on.
        recipe: see `Recipe`.
        group: the processes that share every batch.
        compute: where and in which precision.
        classes: their number, K.
        cache: where the teacher's answers are kept, if they are.
        progress: hears (done, total) pictures while the teacher is asked for answers to keep.

    Raises:
        UsageError: the loss needs what student or teacher cannot give.
    """
    if recipe.batch_size % group.size:
        divisible = recipe.batch_size // group.size * group.size  # not the next above: there may be no more pictures
        expected = f"Expected a --batch-size such as {divisible}." if divisible else "Start fewer processes."
        raise UsageError(
            f"A batch of {recipe.batch_size} pictures cannot be divided among {group.size} processes. {expected}"
        )
    objective = objective_of(recipe)
    hinted = _watch_layers(student, teacher, recipe, objective)
    _require_possible(student, teacher, recipe, objective)
    learner = Learner(student, objective, recipe, compute, group, hinted)
    views = Views(
        recipe.augmentation, len(images), images.side, compute.device, seed=recipe.seed, kept=recipe.cached_views
    )
    guidance: Guidance = NoTeacher()
    if teacher is not None and objective.taught:
        guidance = AskTeacher(teacher, objective.map_classes, compiled=compute.compiled)
        if cache is not None:
            guidance = Remembered(teacher, objective.map_classes, images, views, cache, group, progress)
    return Trainer(
        learner,
        Batches(images, views, guidance, recipe, classes, group),
        Examiner(learner, val, teacher, cache),
        recipe,
    )


def objective_of(recipe: Recipe) -> Objective:
    """The terms of a recipe with their settings."""
    return Objective({name: recipe.settings.get(name, {}) for name in recipe.loss})


def cache_key(
    record: dict[str, Any],
    teacher: Teacher,
    images: Images,
    val: Images,
    recipe: Recipe,
    compute: Compute,
    classes: int,
) -> dict[str, Any]:
    """Everything that a teacher's answers to pictures depend on, as JSON values.

    Args:
        record: the teacher's, with the hash of its weights.
        teacher: the teacher.
        images: the training pictures as they are decoded.
        val: the validation pictures.
        recipe: for the augmentation and the number of views.
        compute: bfloat16 rounds.
        classes: their number, K.
    """
    return {
        "format": ANSWERS_FORMAT,
        "teacher": record.get("members", [record]),
        "train": images.sha256,
        "val": val.sha256,
        "augmentation": asdict(recipe.augmentation),
        "views": recipe.cached_views,
        "map_classes": min(classes_to_keep(teacher, objective_of(recipe).map_classes), classes),
        "bf16": compute.bf16,
    }


def _watch_layers(
    student: Watched, teacher: Teacher | None, recipe: Recipe, objective: Objective
) -> list[tuple[int, int]]:
    """Have the layers that are compared given as features; channels of those that are projected."""
    if not objective.compares_layers:
        if recipe.layers:
            raise UsageError(
                f"[layers] of the recipe says what at and hint compare, but {','.join(recipe.loss)} has neither. "
                "Leave it out, or add such a term."
            )
        return []
    names = " and ".join(name for name in ("at", "hint") if name in recipe.loss)
    if not isinstance(teacher, NetworkTeacher):
        raise UsageError(
            f"The loss term {names} compares inner layers, so it needs one teacher that is a PyTorch network. "
            "Expected a run folder, a network with weights, or a loss without it."
        )
    if recipe.cached_views:
        raise UsageError(
            f"The loss term {names} compares inner layers, which are too large to keep. Leave --cache-teacher out."
        )
    pairs = pair_layers(student, teacher.watched, recipe.layers)
    ours, theirs = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    student.watch(ours)
    teacher.watched.watch(theirs)
    if "hint" not in recipe.loss:
        return []
    return list(zip(channels(student, ours), channels(teacher.watched, theirs), strict=True))


def _require_possible(student: Watched, teacher: Teacher | None, recipe: Recipe, objective: Objective) -> None:
    if teacher is None and objective.taught:
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
            f"An .onnx file gives the map of its top class only, but the loss term {terms} compares those of several. "
            "Use --loss ce:0.1,kd:0.9,map:20."
        )
    if recipe.cached_views and not objective.taught:
        raise UsageError(
            f"No term of the loss {','.join(recipe.loss)} asks the teacher, so there are no answers to keep. Leave "
            "--cache-teacher out, or add a term that asks: --loss ce:0.1,kd:0.9."
        )
    if recipe.cached_views and recipe.augmentation.mixes:
        raise UsageError(
            "Mixed pictures are others in every batch, so that the teacher's answers to them cannot be kept. "
            "Leave --cache-teacher out, or take a recipe without mixup and cutmix: --recipe default."
        )
