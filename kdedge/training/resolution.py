"""Choose what a request and its recipe leave open: loss weights and training length."""

from collections.abc import Callable

from kdedge.config.defaults import (
    DEFAULT_STEPS,
    FEW_EPOCHS,
    FEW_FINE_TUNING_EPOCHS,
    choose_epochs,
)
from kdedge.config.recipe_file import Recipe
from kdedge.config.resolved_config import ResolvedConfig, resolve_config
from kdedge.config.train_config import TrainConfig
from kdedge.training.batches import Batches
from kdedge.training.measurements import balanced_weights, measure_loss_scales, seconds_per_epoch
from kdedge.training.step import TrainStep

__all__ = ["measure_config"]


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
        epochs = choose_epochs(
            recipe.steps or DEFAULT_STEPS, batches.per_epoch, seconds, on_cpu=on_cpu, fine_tuning=recipe.fit_head
        )
        if epochs < (FEW_FINE_TUNING_EPOCHS if recipe.fit_head else FEW_EPOCHS):
            enough = 10 if recipe.fit_head else 30
            warn(
                f"Only {epochs} epochs fit into the default limit of 15 minutes on this CPU, which is too few to train "
                "well. Use a GPU, a smaller --size or model such as small:resnet8, or "
                f"--epochs {enough} (about {enough * seconds / 60:.0f} minutes)."
            )
    weights = balanced_weights(recipe.loss.weights, scales)
    return resolve_config(request, recipe, batch_size=batches.batch_size, weights=weights, epochs=epochs)
