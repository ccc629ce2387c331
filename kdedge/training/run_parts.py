"""Parts of a run, built from its samples, networks and teachers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from kdedge.config.recipe_file import Recipe
from kdedge.config.resolved_config import ResolvedConfig, resolve_batch_size
from kdedge.config.train_config import TrainConfig
from kdedge.data import DatasetIndex
from kdedge.modalities import TRAINING_MODALITIES
from kdedge.models.init_from_teacher import InitSummary
from kdedge.models.model_spec import ModelSpec
from kdedge.models.teacher_source import LoadedTeacher
from kdedge.training.augmentation.augmentation_plan import AugmentationPlan
from kdedge.training.batches import Batches
from kdedge.training.builder import build_student, build_trainer_parts, open_teacher_cache
from kdedge.training.compute_device import ComputeDevice
from kdedge.training.distributed import ProcessGroup
from kdedge.training.evaluator import Evaluator
from kdedge.training.head_fit import LastLayer, find_last_layer
from kdedge.training.objective import make_objective
from kdedge.training.run_callback import RunCallback
from kdedge.training.sample_store import WindowCount, load_training_samples
from kdedge.training.step import TrainStep
from kdedge.training.teachers.embedding_teacher import make_embedding_teacher
from kdedge.training.teachers.teacher_loading import as_teacher, init_source
from kdedge.training.trainer import Trainer
from kdedge_runtime.errors import UsageError
from kdedge_runtime.modalities import InputSpec

__all__ = ["RunParts", "build_run_parts"]


@dataclass(frozen=True)
class RunParts:
    """Parts of a trainer, and facts about them."""

    train_step: TrainStep
    batches: Batches
    evaluator: Evaluator
    windows: WindowCount
    """Windows among the samples of training and validation."""
    init_summary: InitSummary | None
    """Layers that start as the teacher's; None without."""
    last_layer: LastLayer | None
    """Layer to fit alone; None if there is none, or if the recipe does not fit it."""

    def trainer(self, config: ResolvedConfig) -> Trainer:
        """Create the trainer of a run with these options."""
        return Trainer(self.train_step, self.batches, self.evaluator, config, self.last_layer)


def build_run_parts(
    dataset: DatasetIndex,
    spec: ModelSpec,
    spec_input: InputSpec,
    recipe: Recipe,
    teachers: Sequence[LoadedTeacher],
    compute: ComputeDevice,
    group: ProcessGroup,
    caches: Path,
    callback: RunCallback,
    *,
    seed: int,
    cached_views: int,
    initial: TrainConfig | None,
) -> RunParts:
    """Load the samples and build the parts of a trainer, and warn about unreadable samples.

    `caches` is the folder with the teacher caches of all runs. `initial` is the request for the initial weights; None
    for random ones, which a checkpoint will replace. The last layer is found if the recipe fits it.

    Raises:
        UsageError: only the last layer is requested, and the network has no dense last layer.
    """
    # The augmenter is created before samples are read, since it may be an error.
    modality = TRAINING_MODALITIES[spec_input.kind]
    augmenter = modality.augmenter(recipe.augmentation, spec_input)
    loaded = load_training_samples(dataset, spec_input, compute, group, callback.on_progress)
    samples, val = loaded.train, loaded.val
    if loaded.problems:
        callback.on_warning(str(loaded.problems))
    weights = None if initial is None else initial.weights
    init_from = init_source(teachers).model if initial is not None and initial.init == "teacher" else None
    student, init_summary = build_student(
        spec, spec_input, compute, group, seed=seed, weights=weights, init_from=init_from
    )
    last_layer = None
    if recipe.fit_head and spec.embedding is None:
        ((_, few),) = val.batches([torch.arange(min(2, len(val)), device=compute.device)])
        last_layer = find_last_layer(student, modality.head_tensors(spec, spec_input), few)
        if last_layer is None and initial is not None and initial.freeze:
            raise UsageError(
                f"The logits of {spec.name} are not the output of a dense layer, so it cannot be fitted alone. Train "
                "all layers: remove --freeze."
            )
    classes = len(dataset.labels)
    if spec.embedding is None:
        teacher = as_teacher(teachers, compute)
    else:
        teacher = make_embedding_teacher(teachers[0], student, samples, compute, callback.on_progress)
    objective = make_objective(recipe.loss.weights, recipe.loss.settings)
    views = AugmentationPlan(augmenter, len(samples), compute.device, seed=seed, kept=cached_views)
    train_step, batches, evaluator = build_trainer_parts(
        student,
        teacher,
        samples,
        val,
        objective,
        views,
        group,
        compute,
        classes=classes,
        same_classes=spec.embedding is not None or all(teacher.classes == classes for teacher in teachers),
        task=dataset.task,
        batch_size=resolve_batch_size(recipe, len(dataset.train)),
        recipe=recipe,
        cache=open_teacher_cache(
            caches, teachers, teacher, samples, val, objective, views, compute, classes, spec.embedding
        ),
        progress=callback.on_progress,
    )
    return RunParts(train_step, batches, evaluator, loaded.windows, init_summary, last_layer)
