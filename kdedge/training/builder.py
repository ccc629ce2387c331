"""Build the student and the parts of a trainer from settings and data."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from kdedge.config.recipe_file import Recipe
from kdedge.data import UNLABELED
from kdedge.losses import LOSS_TERMS
from kdedge.modalities import TRAINING_MODALITIES
from kdedge.models.embedding_network import backbone, build_network
from kdedge.models.init_from_teacher import InitSummary, init_from_teacher
from kdedge.models.model_spec import ModelSpec
from kdedge.models.teacher_source import LoadedTeacher
from kdedge.models.weight_files import load_state, read_state
from kdedge.tasks import TRAINING_TASKS
from kdedge.training.augmentation.augmentation_plan import AugmentationPlan
from kdedge.training.batches import Batches
from kdedge.training.compute_device import ComputeDevice
from kdedge.training.distributed import ProcessGroup
from kdedge.training.evaluator import Evaluator
from kdedge.training.instrumented_model import InstrumentedModel
from kdedge.training.layer_pairs import channels, pair_layers
from kdedge.training.objective import Objective
from kdedge.training.pooled_features import POOLED
from kdedge.training.sample_store import SampleStore
from kdedge.training.step import TrainStep
from kdedge.training.sync_batch_norm import synchronize_batch_norm
from kdedge.training.teachers.targets import CachedTeacher, NoTeacher, OnlineTeacher, TeacherTargets, classes_to_keep
from kdedge.training.teachers.teacher import NetworkTeacher, Teacher
from kdedge.training.teachers.teacher_cache import TeacherCache
from kdedge_runtime.errors import UsageError
from kdedge_runtime.modalities import InputSpec
from kdedge_runtime.tasks import TASKS
from kdedge_runtime.util.progress import ProgressCallback, no_progress

__all__ = ["build_student", "build_trainer_parts", "open_teacher_cache"]

CACHE_FORMAT = 2
"""Format version of the teacher cache. Increase it when augmentation changes for the same random numbers."""


def build_student(
    spec: ModelSpec,
    spec_input: InputSpec,
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
    model = build_network(spec, spec_input)
    if weights is not None:
        modality = TRAINING_MODALITIES[spec_input.kind]
        state = modality.read_weights(spec, spec_input, Path(weights)) or read_state(Path(weights))
        head = modality.head_tensors(spec, spec_input)
        load_state(backbone(model), state, weights, replaced=head)
    init_summary = None if init_from is None else init_from_teacher(backbone(model), backbone(init_from))
    synchronize_batch_norm(model, group)
    return InstrumentedModel(model, spec_input, compute), init_summary


def build_trainer_parts(
    student: InstrumentedModel,
    teacher: Teacher | None,
    samples: SampleStore,
    val: SampleStore,
    objective: Objective,
    views: AugmentationPlan,
    group: ProcessGroup,
    compute: ComputeDevice,
    *,
    classes: int,
    same_classes: bool = True,
    batch_size: int,
    recipe: Recipe,
    task: str,
    cache: TeacherCache | None = None,
    progress: ProgressCallback = no_progress,
) -> tuple[TrainStep, Batches, Evaluator]:
    """Build the train step, the batches and the evaluator, which do not depend on loss weights and training length.

    Args:
        student: student with initial weights.
        teacher: teacher, or None to train on labels only.
        samples: training samples.
        val: validation samples, which select the best epoch.
        objective: loss terms.
        views: augmentation schedule.
        group: processes that share every batch.
        compute: device and precision.
        classes: number of outputs, K.
        same_classes: False for a teacher with other classes, or none, whose predictions are not evaluated.
        task: task of the dataset, a key of `kdedge.tasks.TRAINING_TASKS`.
        batch_size: samples per step, over all processes.
        recipe: settings of the optimizer and the loss, and the compared layers.
        cache: cache of teacher outputs, or None.
        progress: called while the cache is filled.

    Raises:
        UsageError: the student or teacher lacks an output that the loss needs.
    """
    if batch_size % group.size:
        divisible = batch_size // group.size * group.size  # not the next multiple above: there may be no more samples
        expected = f"Use a divisible --batch-size such as {divisible}." if divisible else "Start fewer processes."
        raise UsageError(f"A batch of {batch_size} samples cannot be divided among {group.size} processes. {expected}")
    hinted = _watch_layers(student, teacher, objective, views, recipe.layers)
    _require_possible(student, teacher, objective, views)
    train_step = TrainStep(
        student,
        objective,
        compute,
        group,
        recipe=recipe,
        hinted=hinted,
        labeled_fraction=_labeled_fraction(samples, task),
        target_variance=1.0 if TASKS[task].has_classes else _variance(samples),
    )
    teacher_targets: TeacherTargets = NoTeacher()
    if teacher is not None and objective.uses_teacher:
        teacher_targets = OnlineTeacher(teacher, objective.map_classes, compiled=compute.compiled)
        if cache is not None:
            teacher_targets = CachedTeacher(teacher, objective.map_classes, samples, views, cache, group, progress)
    return (
        train_step,
        Batches(samples, views, teacher_targets, classes, group, batch_size=batch_size, task=task),
        Evaluator(train_step, val, teacher if same_classes else None, cache, task),
    )


def open_teacher_cache(
    folder: Path,
    teachers: Sequence[LoadedTeacher],
    teacher: Teacher | None,
    samples: SampleStore,
    val: SampleStore,
    objective: Objective,
    views: AugmentationPlan,
    compute: ComputeDevice,
    classes: int,
    embedding: int | None = None,
) -> TeacherCache | None:
    """Open the cache of a teacher's outputs, whose key is everything that they depend on.

    Args:
        folder: folder with the caches of all runs.
        teachers: teachers with the hashes of their weights.
        teacher: these teachers on the device.
        samples: decoded training samples.
        val: decoded validation samples.
        objective: loss terms, which determine the number of maps.
        views: augmentation and the number of fixed views.
        compute: device and precision; bfloat16 changes the outputs.
        classes: number of classes, K.
        embedding: size of the teacher's embeddings; None for a classifier.

    Returns:
        The cache, or None without a teacher or without fixed views.
    """
    if not views.kept or teacher is None:
        return None
    key = {
        "format": CACHE_FORMAT,
        "teacher": [member.record for member in teachers],
        "train": samples.sha256,
        "val": val.sha256,
        "augmentation": asdict(views.augmenter.settings),
        "views": views.kept,
        "map_classes": min(classes_to_keep(teacher, objective.map_classes), classes),
        "pooled": any(LOSS_TERMS[name].pooled for name in objective.settings),
        # The embedding of a teacher is fitted on the labels.
        "embedding": None if embedding is None else [embedding, _sha256(samples.targets)],
        "bf16": compute.bf16,
    }
    return TeacherCache(folder, key)


def _sha256(targets: torch.Tensor) -> str:
    return hashlib.sha256(targets.cpu().numpy().tobytes()).hexdigest()


def _labeled_fraction(samples: SampleStore, task: str) -> float:
    """Return the fraction of labeled samples; 1 if there are none, since no term can then use labels."""
    if not TRAINING_TASKS[task].accepts_unlabeled:
        return 1.0
    return float((samples.targets != UNLABELED).float().mean()) or 1.0


def _variance(samples: SampleStore) -> float:
    """Return the variance of the targets; 1 if all are equal."""
    return float(samples.targets.double().var(correction=0)) or 1.0


def _watch_layers(
    student: InstrumentedModel,
    teacher: Teacher | None,
    objective: Objective,
    views: AugmentationPlan,
    layers: dict[str, str],
) -> list[tuple[int, int]]:
    """Capture the features of compared layers, and return the channels of projected ones."""
    if not objective.compares_layers:
        if layers:
            comparing = ", ".join(name for name, term in LOSS_TERMS.items() if term.features and not term.pooled)
            raise UsageError(
                f"[layers] in the recipe sets the layers for {comparing}, but the loss {objective.text} has "
                "none of these terms. Remove the table, or add one of the terms."
            )
        return []
    names = " and ".join(name for name in objective.settings if LOSS_TERMS[name].features)
    if not isinstance(teacher, NetworkTeacher):
        raise UsageError(
            f"The loss term {names} compares intermediate layers, so it needs a single PyTorch teacher. "
            "Expected a run folder, a model name with weights, or a loss without this term."
        )
    pooled = [name for name in objective.settings if LOSS_TERMS[name].pooled]
    if views.kept and not pooled:
        raise UsageError(
            f"The loss term {names} compares intermediate layers, which are too large to cache. Remove --cache-teacher."
        )
    pairs = ((POOLED, POOLED),) if pooled and not layers else pair_layers(student, teacher.watched, layers)
    if pooled and any(pair != (POOLED, POOLED) for pair in pairs):
        raise UsageError(
            f"The loss term {' and '.join(pooled)} compares pooled features only. Remove [layers] from the recipe."
        )
    spatial = [
        name
        for name in objective.settings
        if LOSS_TERMS[name].features and not LOSS_TERMS[name].projects and not LOSS_TERMS[name].pooled
    ]
    if spatial and any(POOLED in pair for pair in pairs):
        why = f"{' and '.join(pooled)} compares pooled ones" if pooled else "pooled features have no positions"
        raise UsageError(
            f"The loss term {' and '.join(spatial)} compares spatial features, but {why}. Remove one of the terms, or "
            "use --loss ce,hint."
        )
    ours, theirs = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    student.watch(ours)
    teacher.watched.watch(theirs)
    sizes = list(zip(channels(student, ours), channels(teacher.watched, theirs), strict=True))
    same = [name for name in objective.settings if LOSS_TERMS[name].same_size]
    if same and any(mine != other for mine, other in sizes):
        raise UsageError(
            f"The loss term {' and '.join(same)} compares features of the same size, but the student has "
            f"{sizes[0][0]} and the teacher {sizes[0][1]}. Use --task embedding, or --loss ce,rkd."
        )
    if not any(LOSS_TERMS[name].projects for name in objective.settings):
        return []
    return sizes


def _require_possible(
    student: InstrumentedModel, teacher: Teacher | None, objective: Objective, views: AugmentationPlan
) -> None:
    if teacher is None and objective.uses_teacher:
        raise UsageError(f"The loss {objective.text} needs a teacher. Use kdedge distill, or --loss ce.")
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
    if views.kept and not objective.uses_teacher:
        raise UsageError(
            f"No term of the loss {objective.text} uses the teacher, so there are no outputs to cache. Remove "
            "--cache-teacher, or add such a term: --loss ce:0.1,kd:0.9."
        )
    if views.kept and views.augmenter.settings.mixes:
        raise UsageError(
            "Mixed samples differ in every batch, so the teacher's outputs cannot be cached. "
            "Remove --cache-teacher, or use a recipe without mixup and cutmix: --recipe default."
        )
