"""Regression: the output is a value in the unit of the target."""

from collections.abc import Sequence

from kdedge_runtime.util.arrays import Floats
from kdedge_runtime.util.counts import number_text

__all__ = ["REGRESSION", "Regression"]


class Regression:
    """Scores are the outputs themselves, in the unit of the target."""

    name = "regression"
    score_name = "value"
    has_classes = False
    has_values = True
    has_embedding = False

    def scores(self, logits: Floats, temperature: float) -> Floats:
        """Return the values `[N, K]`; the temperature has no effect."""
        return logits

    def ranking(self, scores: Floats, labels: Sequence[str]) -> tuple[tuple[str, float], ...]:
        """Return the targets with their values, in the order of the model."""
        return tuple((label, float(score)) for label, score in zip(labels, scores, strict=True))

    def share(self, score: float) -> float | None:
        """Return None, since a value has no range."""
        return None

    def format_score(self, score: float, digits: int = 0) -> str:
        """Format a value with four significant digits or as an integer; `digits` has no effect."""
        return number_text(score)


REGRESSION = Regression()
