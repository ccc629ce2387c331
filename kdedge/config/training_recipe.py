"""The settings of a training run."""

from dataclasses import dataclass, field
from typing import Any

from kdedge.training.augmentation import Augmentation

__all__ = ["Recipe"]


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what a run does with its data."""

    epochs: int
    batch_size: int
    """Pictures a step, over all processes."""
    learning_rate: float
    """Peak, of SGD with Nesterov momentum 0.9, after a linear warm-up and before a cosine down to zero."""
    loss: dict[str, float]
    """Term name to weight, see `kdedge.losses.TERMS`."""
    settings: dict[str, dict[str, float | int]] = field(default_factory=dict)
    """What is set of a term besides its weight."""
    measured: tuple[str, ...] = ()
    """Terms whose weights were found by measurement: another seed finds others."""
    layers: dict[str, str] = field(default_factory=dict)
    """The layers that `at` and `hint` compare: the student's module path to the teacher's; empty: found."""
    temperature: float = 4.0
    weight_decay: float = 5e-4
    warmup_fraction: float = 0.1
    """Share of all steps in which the learning rate rises."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    cached_views: int = 0
    """How many views of a picture the teacher is asked about, once for all runs; 0: about a new one every epoch."""
    seed: int = 0

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> "Recipe":
        """The recipe that `dataclasses.asdict` turned into JSON values."""
        augmentation, measured = Augmentation(**record["augmentation"]), tuple(record["measured"])
        return cls(**record | {"augmentation": augmentation, "measured": measured})
