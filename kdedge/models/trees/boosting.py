"""Rows and settings of gradient boosting, which every library takes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["PATIENCE", "Boosting"]

PATIENCE = 50
"""Rounds without a lower loss on the validation rows after which training ends."""


@dataclass(frozen=True, eq=False)
class Boosting:
    """Rows and settings of a training by gradient boosting."""

    train: tuple[NDArray[np.float32], NDArray[Any]]
    """Rows `[N, F]` with NaN for missing values, and their targets."""
    val: tuple[NDArray[np.float32], NDArray[Any]]
    """Validation rows and targets."""
    names: Sequence[str]
    """Name of each column."""
    categorical: Sequence[bool]
    """True for each column of codes."""
    classes: int
    """Number of classes; 0 for a regression."""
    rate: float
    """Learning rate, in (0, 1]."""
    seed: int
    """Random seed."""
    rounds: int
    """Maximum number of rounds."""
