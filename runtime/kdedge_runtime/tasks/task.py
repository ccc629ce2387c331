"""Interface of a task at inference: from logits to a ranking of labels."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from kdedge_runtime.util.arrays import Floats

__all__ = ["Task", "best_labels", "clip_share"]

_RANKED = 3


class Task(Protocol):
    """Interpretation of a model's logits."""

    @property
    def name(self) -> str:
        """Name in the metadata of model files."""

    @property
    def score_name(self) -> str:
        """Name of a score in outputs, such as `probability`."""

    @property
    def has_classes(self) -> bool:
        """True if the ground truth is one of the labels; False for values, or several labels at once."""

    @property
    def has_values(self) -> bool:
        """True if the output is a value without a range, as in a regression; False for labels."""

    @property
    def has_embedding(self) -> bool:
        """True if logits are cosine similarities of an embedding to prototypes; their softmax is nearly uniform."""

    def scores(self, logits: Floats, temperature: float) -> Floats:
        """Convert logits to scores, both `[N, K]`.

        Args:
            logits: outputs of the model.
            temperature: calibration temperature.
        """

    def ranking(self, scores: Floats, labels: Sequence[str]) -> tuple[tuple[str, float], ...]:
        """Return the labels to display with their scores, best first and at least one.

        Args:
            scores: scores of one sample, `[K]`.
            labels: name of each score.
        """

    def share(self, score: float) -> float | None:
        """Return a score as a fraction of its range, in [0, 1]; None for an unbounded score."""

    def format_score(self, score: float, digits: int = 0) -> str:
        """Format a score with its unit, such as `93%`; `digits` is the number of decimals for a share."""


def best_labels(scores: Floats, labels: Sequence[str]) -> tuple[tuple[str, float], ...]:
    """Return up to three labels with the largest scores, best first.

    Args:
        scores: scores of one sample, `[K]`.
        labels: name of each score.
    """
    best = np.argsort(-scores, kind="stable")[:_RANKED]
    return tuple((labels[index], float(scores[index])) for index in best)


def clip_share(score: float) -> float:
    """Return a score clipped to [0, 1]."""
    return min(max(score, 0.0), 1.0)
