"""Resolved settings of a training run."""

from dataclasses import dataclass, field
from typing import Any

from kdedge.config.augmentation_settings import Augmentation

__all__ = ["TrainingRecipe"]


@dataclass(frozen=True)
class TrainingRecipe:
    """All settings that determine the result of a run on its data."""

    epochs: int
    batch_size: int
    """Images per step, over all processes."""
    learning_rate: float
    """Peak learning rate of SGD with Nesterov momentum 0.9, with linear warmup and cosine decay to zero."""
    loss: dict[str, float]
    """Mapping from term name to weight, see `kdedge.losses.LOSS_TERMS`."""
    settings: dict[str, dict[str, float | int]] = field(default_factory=dict)
    """Settings of terms besides their weights."""
    measured: tuple[str, ...] = ()
    """Terms whose weights were measured; they vary with the seed."""
    layers: dict[str, str] = field(default_factory=dict)
    """Layers compared by `at` and `hint`, student module path to teacher module path; empty to find them."""
    temperature: float = 4.0
    weight_decay: float = 5e-4
    warmup_fraction: float = 0.1
    """Fraction of all steps with a rising learning rate."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    cached_views: int = 0
    """Number of cached views per image for the teacher; 0 evaluates the teacher in every epoch."""
    seed: int = 0

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> "TrainingRecipe":
        """Restore a recipe from the JSON values of `dataclasses.asdict`."""
        augmentation, measured = Augmentation(**record["augmentation"]), tuple(record["measured"])
        return cls(**record | {"augmentation": augmentation, "measured": measured})
