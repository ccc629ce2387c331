"""Familiarity of a sample, and the threshold below which a prediction is unknown."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from kdedge_runtime.util.arrays import Floats
from kdedge_runtime.util.json_values import is_finite_number

__all__ = ["FAMILIARITY", "UNKNOWN", "Familiarity"]

FAMILIARITY = "familiarity"
"""Graph output, float32 `[N]`; larger values are more similar to the training samples."""
UNKNOWN = "unknown"
"""Displayed instead of a label that is not trusted."""


@dataclass(frozen=True)
class Familiarity:
    """Description of the output `familiarity` and its threshold, an entry of the metadata."""

    method: str
    """Method of the score: `discriminant-cosine` of the features, or `energy` of the logits."""
    threshold: float | None = None
    """Scores below it are unknown; None without a threshold."""
    known: int = 0
    """Number of validation samples of known classes that the threshold was fitted on."""
    rejected: int = 0
    """Number of these samples below the threshold."""
    most_rejected: float | None = None
    """Upper confidence bound (95%) on the share of known samples below the threshold, in [0, 1]."""
    why_not: str | None = None
    """Reason for a missing threshold; None with one."""

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Parse an entry of the metadata; unknown keys are ignored.

        Raises:
            KeyError, TypeError, ValueError: the entry is damaged.
        """
        names = ("threshold", "known", "rejected", "most_rejected", "why_not")
        found = cls(values["method"], **{name: values[name] for name in names if name in values})
        numbers = (found.threshold, found.most_rejected)
        if not isinstance(found.method, str) or not isinstance(found.why_not, str | None):
            raise TypeError(f"invalid familiarity {values}")
        if not all(number is None or is_finite_number(number) for number in numbers):
            raise ValueError(f"invalid familiarity {values}")
        if not all(isinstance(count, int) and count >= 0 for count in (found.known, found.rejected)):
            raise ValueError(f"invalid familiarity {values}")
        return found

    def is_unknown(self, scores: Floats) -> NDArray[np.bool_]:
        """Return whether each score lies below the threshold or is not a number; never without a threshold."""
        if self.threshold is None:
            return np.zeros(scores.shape, dtype=np.bool_)
        # The threshold is the score of a sample in float32.
        return np.asarray(~(scores >= np.float32(self.threshold)))
