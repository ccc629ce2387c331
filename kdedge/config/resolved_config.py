"""Resolved settings of a training run: the request, its recipe, and what was measured."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from kdedge.config.augmentation_settings import Augmentation
from kdedge.config.defaults import choose_batch_size, choose_recipe
from kdedge.config.loss_spec import LossSpec, parse_loss
from kdedge.config.recipe_file import Optimizer, Recipe, load_recipe
from kdedge.config.recipe_names import shipped_recipes
from kdedge.config.train_config import TrainConfig
from kdedge.losses import LOSS_TERMS
from kdedge.modalities import TRAINING_MODALITIES
from kdedge.tasks import TRAINING_TASKS
from kdedge_runtime.errors import UsageError

FINE_TUNE = "fine-tune"
"""Default recipe for networks that start from trained weights."""

__all__ = ["FINE_TUNE", "ResolvedConfig", "requested_recipe", "resolve_batch_size", "resolve_config"]


@dataclass(frozen=True)
class ResolvedConfig:
    """All settings that determine the result of a run on its data."""

    epochs: int
    batch_size: int
    """Samples per step, over all processes."""
    learning_rate: float
    """Peak learning rate of the last layer, with linear warmup and cosine decay to zero."""
    loss: dict[str, float]
    """Mapping from term name to weight, see `kdedge.losses.LOSS_TERMS`."""
    settings: dict[str, dict[str, float | int]]
    """Settings of terms besides their weights."""
    measured: tuple[str, ...]
    """Terms whose weights were measured; they vary with the seed."""
    layers: dict[str, str]
    """Layers compared by `at` and `hint`, student module path to teacher module path; empty to find them."""
    temperature: float
    optimizer: Optimizer | Literal["boosting"]
    """Optimizer; boosting for an ensemble of trees."""
    weight_decay: float
    warmup_fraction: float
    """Fraction of all steps with a rising learning rate."""
    layer_decay: float
    """Learning rate of the first layer relative to the last; geometric in between."""
    fit_head: bool
    """True if the first epoch fits the last layer on frozen features."""
    augmentation: Augmentation
    cached_views: int
    """Number of cached views per sample for the teacher; 0 evaluates the teacher in every epoch."""
    seed: int

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> "ResolvedConfig":
        """Restore the settings from the JSON values of `dataclasses.asdict`."""
        augmentation, measured = Augmentation(**record["augmentation"]), tuple(record["measured"])
        return cls(**record | {"augmentation": augmentation, "measured": measured})

    @property
    def recipe(self) -> Recipe:
        """Recipe that leaves nothing open, from which a resumed run builds the same student, batches and loss."""
        return Recipe(
            name="resolved",
            loss=LossSpec(dict(self.loss), self.settings),
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            temperature=self.temperature,
            optimizer="sgd" if self.optimizer == "boosting" else self.optimizer,
            weight_decay=self.weight_decay,
            warmup_fraction=self.warmup_fraction,
            layer_decay=self.layer_decay,
            fit_head=self.fit_head,
            layers=self.layers,
            augmentation=self.augmentation,
        )


def requested_recipe(
    request: TrainConfig, samples: int, classes: int, task: str, *, modality: str = "image", has_labels: bool = True
) -> Recipe:
    """Read the recipe of a run, and override it with the options of the request.

    Args:
        request: training options; without a recipe, one is chosen from the number of samples per class.
        samples: number of training samples.
        classes: number of classes, K.
        task: task of the dataset, which may replace the loss of the recipe.
        modality: modality of the dataset, which chooses the recipe.
        has_labels: False for samples without ground truth, which drops the terms that need it from a recipe.

    Raises:
        UsageError: the recipe or the loss cannot be read, a temperature is requested that no loss term uses, or only
            the head of random layers; or the loss needs labels that the samples do not have.
    """
    own = TRAINING_MODALITIES[modality].default_recipe(request.kind)
    default = own or choose_recipe(request.kind, samples / max(1, classes))
    recipe = load_recipe(request.recipe or (FINE_TUNE if request.is_pretrained else default))
    loss = recipe.loss if recipe.loss.weights else load_recipe(default).loss
    if request.loss is not None:
        loss = parse_loss(request.loss)
    unfit = TRAINING_TASKS[task].unfit_terms
    if request.loss is None and request.recipe in (None, *shipped_recipes()):
        loss = TRAINING_TASKS[task].default_loss(loss)
    elif wrong := [name for name in loss.weights if name in unfit]:
        raise UsageError(
            f"The loss term {wrong[0]} does not fit the task {task}. Expected {unfit[wrong[0]]} in its place."
        )
    if not has_labels:
        loss = _without_labels(loss, request)
    if request.temperature is not None and not any(LOSS_TERMS[name].uses_temperature for name in loss.weights):
        softened = [name for name, term in LOSS_TERMS.items() if term.uses_temperature]
        raise UsageError(f"--temperature applies to the terms {', '.join(softened)}, but the loss has none of them.")
    flip = recipe.augmentation.flip if request.flip is None else request.flip
    augmentation = replace(recipe.augmentation, flip=flip and TRAINING_MODALITIES[modality].flips)
    if request.freeze:
        if not request.is_pretrained:
            raise UsageError(
                f"--freeze fits only the last layer of {request.model}, but its other layers have random weights. "
                "Expected trained weights: --weights FILE. To train all layers, remove --freeze."
            )
        if not any(LOSS_TERMS[name].uses_logits_alone for name in loss.weights):
            raise UsageError(
                f"--freeze fits the last layer on logits, but the loss {','.join(loss.weights)} compares only maps or "
                "features. Add such a term: --loss ce:1."
            )
        recipe = replace(recipe, fit_head=True, steps=None, epochs=1)
    return replace(
        recipe,
        loss=loss,
        epochs=recipe.epochs if request.epochs is None else request.epochs,
        batch_size=request.batch_size or recipe.batch_size,
        learning_rate=request.lr or recipe.learning_rate,
        temperature=recipe.temperature if request.temperature is None else request.temperature,
        augmentation=augmentation,
    )


def _without_labels(loss: LossSpec, request: TrainConfig) -> LossSpec:
    """Return the terms that need no labels.

    Raises:
        UsageError: the loss was requested with such a term, or has no other.
    """
    kept = {name: weight for name, weight in loss.weights.items() if LOSS_TERMS[name].needs_teacher}
    if not kept or (request.loss is not None and kept != loss.weights):
        label_terms = ", ".join(name for name in loss.weights if name not in kept)
        raise UsageError(
            f"The loss term {label_terms} needs labels, but {request.data} has no class folders. Use a loss of the "
            "teacher alone: --loss kd:0.9,mapall:20."
        )
    return LossSpec(kept, {name: options for name, options in loss.settings.items() if name in kept})


def resolve_batch_size(recipe: Recipe, samples: int) -> int:
    """Return the batch size of a recipe, or the default for a number of training samples; at most all samples."""
    return min(recipe.batch_size or choose_batch_size(samples), samples)


def resolve_config(
    request: TrainConfig, recipe: Recipe, *, batch_size: int, weights: Mapping[str, float], epochs: int
) -> ResolvedConfig:
    """Combine a request, its recipe and the measured values.

    Args:
        request: training options.
        recipe: recipe with the request's options, see `requested_recipe`.
        batch_size: samples per step, over all processes.
        weights: weight of each loss term, including the measured ones.
        epochs: number of epochs.
    """
    # Trained weights are fine-tuned gently; random ones use the literature's rate, scaled with the batch size.
    default_rate = 0.001 if recipe.optimizer == "adamw" else (0.01 if request.is_pretrained else 0.1) * batch_size / 128
    return ResolvedConfig(
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=recipe.learning_rate or default_rate,
        loss=dict(weights),
        settings=recipe.loss.settings,
        measured=tuple(name for name, weight in recipe.loss.weights.items() if weight is None),
        layers=recipe.layers,
        temperature=recipe.temperature,
        optimizer=recipe.optimizer,
        weight_decay=recipe.weight_decay,
        warmup_fraction=recipe.warmup_fraction,
        layer_decay=recipe.layer_decay,
        fit_head=recipe.fit_head,
        augmentation=recipe.augmentation,
        cached_views=request.cache_teacher or 0,
        seed=request.seed or 0,
    )
