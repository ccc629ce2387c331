"""Choose what a request leaves open: input size, map resolution, loss weights and training length."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from kdedge.config.defaults import (
    DEFAULT_STEPS,
    FEW_EPOCHS,
    choose_epochs,
    choose_size,
    requested_stride_factor,
    stride_factor,
)
from kdedge.config.recipe_file import Recipe
from kdedge.config.resolved_config import ResolvedConfig, resolve_config
from kdedge.config.train_config import TrainConfig
from kdedge.data import DatasetIndex, typical_size
from kdedge.models.model_names import canonical_name
from kdedge.models.model_registry import build_model, make_spec, pretrained_input
from kdedge.models.model_spec import ModelSpec
from kdedge.models.pretrained import published_name
from kdedge.models.stem import output_strides
from kdedge.models.teacher_source import LoadedTeacher
from kdedge.training.batches import Batches
from kdedge.training.measurements import balanced_weights, measure_loss_scales, seconds_per_epoch
from kdedge.training.step import TrainStep
from kdedge.training.teachers.teacher_loading import init_source
from kdedge_runtime.modalities.image import ImageInput

__all__ = ["choose_network", "measure_config"]


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


def measure_config(
    request: TrainConfig,
    recipe: Recipe,
    train_step: TrainStep,
    batches: Batches,
    *,
    on_cpu: bool,
    warn: Callable[[str], None],
) -> ResolvedConfig:
    """Measure the missing loss weights, and on a CPU the time per epoch, and resolve the settings of a run.

    Args:
        request: training options.
        recipe: recipe with the request's options.
        train_step: untrained student; it is not changed.
        batches: training batches.
        on_cpu: True to limit the number of epochs by the measured time.
        warn: called with a warning about too few epochs.
    """
    group, scales = train_step.group, [1.0] * len(recipe.loss.weights)
    if None in recipe.loss.weights.values():
        scales = group.broadcast(measure_loss_scales(train_step, batches))
    epochs = recipe.epochs
    if epochs is None:
        (seconds,) = group.broadcast([seconds_per_epoch(train_step, batches) if on_cpu else 0.0])
        epochs = choose_epochs(recipe.steps or DEFAULT_STEPS, batches.per_epoch, seconds, on_cpu=on_cpu)
        if epochs < FEW_EPOCHS:
            warn(
                f"Only {epochs} epochs fit into the default limit of 15 minutes on this CPU, which is too few to train "
                "well. Use a GPU, a smaller model such as small:resnet8, or "
                f"--epochs 30 (about {30 * seconds / 60:.0f} minutes)."
            )
    weights = balanced_weights(recipe.loss.weights, scales)
    return resolve_config(request, recipe, batch_size=batches.batch_size, weights=weights, epochs=epochs)
