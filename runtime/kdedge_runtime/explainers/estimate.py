"""What an explainer gives: a map and how sure it is."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np

from kdedge_runtime.util.arrays import Floats, Pixels

__all__ = ["Estimate", "Explainer", "Progress"]

Progress: TypeAlias = Callable[[int, int], None]
"""Takes how much is done and how much there is to do: evaluations, or milliseconds where a budget was given."""


@dataclass(frozen=True)
class Estimate:
    """A map, found by asking the model again and again."""

    map: Floats
    """`[h, w]` over what the model sees, signed: positive cells speak for the class."""
    standard_error: Floats
    """`[h, w]`, of each cell: how far the map may be from that of the same method with evaluations without end, or with
    all that there are. Infinite where the evaluations were too few to tell."""
    evaluations: int
    """Pictures that the model was asked about."""
    elapsed_ms: float

    @property
    def relative_error(self) -> float:
        """The median cell's standard error as a share of the map's largest magnitude."""
        largest = float(np.abs(self.map).max())
        typical = float(np.median(self.standard_error))
        return typical / largest if largest > 0 else (0.0 if typical == 0 else np.inf)


class Explainer(Protocol):
    """Explains one class in one picture."""

    def __call__(self, image: Pixels, class_index: int, progress: Progress | None = None) -> Estimate:
        """Explain.

        Args:
            image: uint8 RGB `[H, W, 3]` at the model's size (see `kdedge_runtime.preprocess.fit`).
            class_index: the class that the map speaks about.
            progress: is called after each batch.
        """
