"""Similarity of embeddings to classes, which can be enrolled after the export."""

from collections.abc import Sequence

from kdedge_runtime.tasks.task import best_labels, clip_share
from kdedge_runtime.util.arrays import Floats

__all__ = ["SIMILARITY", "Similarity"]


class Similarity:
    """Scores are the logits: cosine similarities of the embedding to each prototype, in [-1, 1]."""

    name = "embedding"
    score_name = "similarity"
    has_classes = True
    has_values = False
    has_embedding = True

    def scores(self, logits: Floats, temperature: float) -> Floats:
        """Return the similarities `[N, M]`; the temperature has no effect."""
        return logits

    def ranking(self, scores: Floats, labels: Sequence[str]) -> tuple[tuple[str, float], ...]:
        """Return up to three nearest classes with their similarities."""
        return best_labels(scores, labels)

    def share(self, score: float) -> float | None:
        """Return the similarity, clipped to [0, 1]."""
        return clip_share(score)

    def format_score(self, score: float, digits: int = 0) -> str:
        """Format a similarity with two decimals and without a unit, such as `0.83`; `digits` has no effect."""
        return f"{score:z.2f}"


SIMILARITY = Similarity()
