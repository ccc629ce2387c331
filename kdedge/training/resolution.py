"""Choose what a request leaves open: input size, map resolution, loss weights and training length."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from kdedge.config.defaults import (
    FEW_EPOCHS,
    choose_epochs,
    choose_size,
    requested_stride_factor,
    stride_factor,
)
from kdedge.config.train_config import TrainConfig, TrainingPlan
from kdedge.config.training_recipe import TrainingRecipe
from kdedge.data import DatasetIndex, typical_size
from kdedge.losses import LOSS_TERMS
from kdedge.models.model_names import canonical_name
from kdedge.models.model_registry import build_model, make_spec, pretrained_input
from kdedge.models.model_spec import ModelSpec
from kdedge.models.pretrained import published_name
from kdedge.models.stem import output_strides
from kdedge.models.teacher_source import LoadedTeacher
from kdedge.training.distributed import ProcessGroup
from kdedge.training.measurements import balanced_weights, measure_loss_scales, seconds_per_epoch
from kdedge.training.teachers.teacher_loading import init_source
from kdedge.training.trainer import Trainer
from kdedge_runtime.errors import UsageError
from kdedge_runtime.modalities.image import ImageInput

__all__ = ["choose_network", "draft_recipe", "resolve_recipe"]


def choose_network(
    request: TrainConfig, teachers: list[LoadedTeacher], collection: DatasetIndex, *, on_cpu: bool
) -> tuple[ModelSpec, ImageInput]:
    """Choose the model and its input: size from the teacher or the images, and the map resolution.

    Args:
        request: training options.
        teachers: teachers; the first one determines the resizing rule.
        collection: dataset index.
        on_cpu: True to choose a smaller default size.
    """
    name = canonical_name(request.model)
    natural = pretrained_input(published_name(name, None if request.weights is None else Path(request.weights)))
    if teachers:
        # The teacher needs the images resized as in its own training, so the student uses the same rule.
        geometry = teachers[0].input
        size = request.size or geometry.height
    else:
        # Pretrained weights expect a center crop; a model trained from scratch uses the whole image.
        geometry = natural if request.weights else replace(natural, crop_fraction=1.0)
        size = request.size or choose_size(typical_size(collection.train), on_cpu=on_cpu)
    spec_input = replace(geometry, height=size, width=size, mean=natural.mean, std=natural.std)
    fresh_stem = request.weights is None
    if request.init == "teacher":
        init_summary = init_source(teachers).spec
        fresh_stem = init_summary.fresh_stem
    plain = make_spec(name, len(collection.labels), fresh_stem=fresh_stem)
    strides = output_strides(build_model(plain, size), size)
    if request.output_stride is None:
        factor = stride_factor(size, strides)
    else:
        factor = requested_stride_factor(request.output_stride, strides)
    return replace(plain, stride_factor=factor), spec_input


def draft_recipe(plan: TrainingPlan, request: TrainConfig) -> TrainingRecipe:
    """Build the recipe, except for its length and the measured weights.

    Raises:
        UsageError: A temperature is given, but no loss term uses it.
    """
    settings, weights = plan.settings, plan.loss.weights
    softened = [name for name, term in LOSS_TERMS.items() if term.uses_temperature]
    if request.temperature is not None and not set(softened) & set(weights):
        raise UsageError(f"--temperature applies to the terms {', '.join(softened)}, but the loss has none of them.")
    return TrainingRecipe(
        epochs=1,
        batch_size=plan.batch_size,
        learning_rate=plan.learning_rate,
        loss={name: 1.0 if weight is None else weight for name, weight in weights.items()},
        settings=plan.loss.settings,
        measured=tuple(name for name, weight in weights.items() if weight is None),
        layers=settings.layers,
        temperature=settings.temperature,
        weight_decay=settings.weight_decay,
        warmup_fraction=settings.warmup_fraction,
        augmentation=settings.augmentation,
        cached_views=request.cache_teacher or 0,
        seed=request.seed or 0,
    )


def resolve_recipe(
    trainer: Trainer, plan: TrainingPlan, group: ProcessGroup, *, on_cpu: bool, warn: Callable[[str], None]
) -> TrainingRecipe:
    """Complete the recipe by measurement: loss weights, and on a CPU the number of epochs."""
    recipe = trainer.recipe
    if recipe.measured:
        sizes = group.broadcast(measure_loss_scales(trainer))
        recipe = replace(recipe, loss=balanced_weights(plan.loss.weights, sizes))
    if plan.settings.epochs is not None:
        return replace(recipe, epochs=plan.settings.epochs)
    (seconds,) = group.broadcast([seconds_per_epoch(trainer) if on_cpu else 0.0])
    epochs = choose_epochs(plan.steps, trainer.batches.per_epoch, seconds, on_cpu=on_cpu)
    if epochs < FEW_EPOCHS:
        warn(
            f"Only {epochs} epochs fit into the default limit of 15 minutes on this CPU, which is too few to train "
            "well. Use a GPU, a smaller model such as small:resnet8, or "
            f"--epochs 30 (about {30 * seconds / 60:.0f} minutes)."
        )
    return replace(recipe, epochs=epochs)
