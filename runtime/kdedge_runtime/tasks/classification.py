"""Classification into exactly one of K classes."""

from collections.abc import Sequence

from kdedge_runtime.tasks.task import best_labels, clip_share
from kdedge_runtime.util.arrays import Floats, softmax

__all__ = ["CLASSIFICATION", "Classification"]


class Classification:
    """Scores are probabilities: the softmax of the logits at the calibration temperature."""

    name = "classify"
    score_name = "probability"
    has_classes = True
    has_values = False
    has_embedding = False

    def scores(self, logits: Floats, temperature: float) -> Floats:
        """Return probabilities `[N, K]`; rows sum to 1."""
        return softmax(logits / temperature)

    def ranking(self, scores: Floats, labels: Sequence[str]) -> tuple[tuple[str, float], ...]:
        """Return up to three most probable classes with their probabilities."""
        return best_labels(scores, labels)

    def share(self, score: float) -> float | None:
        """Return the probability, clipped to [0, 1]."""
        return clip_share(score)

    def format_score(self, score: float, digits: int = 0) -> str:
        """Format a probability in percent."""
        return f"{score:.{digits}%}"


CLASSIFICATION = Classification()
