"""The settings of a training run."""

import difflib
from dataclasses import dataclass, field

from kdedge.distill.losses import TERMS
from kdedge_runtime.errors import UsageError

__all__ = ["DISTILL_LOSS", "TRAIN_LOSS", "Recipe", "parse_loss"]

TRAIN_LOSS = {"ce": 1.0}
DISTILL_LOSS = {"ce": 0.1, "kd": 0.9, "mapall": 20.0}
"""KD at Hinton's usual weights, and the explanation term at the low end of its measured plateau (20 to 60)."""


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what a run does with its data."""

    epochs: int
    batch_size: int
    learning_rate: float
    """Peak, of SGD with Nesterov momentum 0.9, after a linear warm-up and before a cosine down to zero."""
    loss: dict[str, float] = field(default_factory=lambda: dict(DISTILL_LOSS))
    """Term name to weight, see `kdedge.distill.losses.TERMS`."""
    temperature: float = 4.0
    weight_decay: float = 5e-4
    warmup_fraction: float = 0.1
    """Share of all steps in which the learning rate rises."""
    flip: bool = True
    """Mirror half of the training images; off where left and right differ, as on traffic signs."""
    shift_fraction: float = 0.125
    """Largest shift of a training image, as a share of its side; the edge is filled with its mirror image."""
    seed: int = 0


def parse_loss(text: str) -> dict[str, float]:
    """Read a weighted sum such as `ce:0.1,kd:0.9,mapall:20`; a term without a weight has 1.

    Raises:
        UsageError: a term is unknown or named twice, or a weight is not a number above zero.
    """
    loss: dict[str, float] = {}
    for part in text.split(","):
        name, _, weight = (piece.strip() for piece in part.partition(":"))
        if name not in TERMS:
            near = difflib.get_close_matches(name, TERMS, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise UsageError(f"Unknown loss term {name!r} in {text!r}.{hint} The terms are: {', '.join(TERMS)}.")
        if name in loss:
            raise UsageError(f"The loss {text!r} names {name!r} twice. Expected every term once.")
        try:
            loss[name] = float(weight or 1)
        except ValueError:
            loss[name] = float("nan")
        if not 0 < loss[name] < float("inf"):
            raise UsageError(f"The weight of loss term {name!r} in {text!r} must be a number above zero.")
    return loss
