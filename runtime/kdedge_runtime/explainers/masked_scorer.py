"""Evaluation of partially hidden samples within a time budget."""

import time
from collections.abc import Callable, Iterator
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from kdedge_runtime.explainers.estimate import MapEstimate
from kdedge_runtime.modalities import InputSpec, Sample
from kdedge_runtime.util.arrays import Floats
from kdedge_runtime.util.progress import ProgressCallback, no_progress

__all__ = ["Doubles", "MaskedScorer", "Score", "Truths"]

Doubles: TypeAlias = NDArray[np.float64]
Truths: TypeAlias = NDArray[np.bool_]
Score: TypeAlias = Callable[[Sample], Floats]
"""Score function from preprocessed samples `[n, …]` to scores `[n]`."""
_BATCH = 8
"""Samples per forward pass. Larger batches gain little on a CPU and delay the budget check."""
_MAX_EVALUATIONS = 100_000
_STEP = "explaining the sample"


class MaskedScorer:
    """State of one explanation: hides parts, evaluates the score, counts evaluations and measures time."""

    def __init__(
        self,
        score: Score,
        sample: Sample,
        spec: InputSpec,
        *,
        budget_ms: float | None = None,
        seed: int = 0,
        progress: ProgressCallback = no_progress,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start the clock of an explanation.

        Args:
            score: score function.
            sample: preprocessed sample.
            spec: input of the model, which hides parts of the sample.
            budget_ms: time limit in milliseconds; None uses each method's default number of evaluations.
            seed: random seed.
            progress: callback, called after each batch.
            clock: monotonic clock in seconds.
        """
        self.height, self.width = spec.mask_size
        self.rng = np.random.default_rng(seed)
        self.budget_ms = budget_ms
        self.evaluations = 0
        self._score = score
        self._sample, self._spec = sample, spec
        self._progress = progress
        self._clock = clock
        self._started = clock()

    @property
    def elapsed_ms(self) -> float:
        """Milliseconds since the start."""
        return (self._clock() - self._started) * 1e3

    def score(self, keep: Floats) -> Doubles:
        """Score the sample with parts hidden.

        Args:
            keep: visibility `[n, H, W]` in [0, 1]; 0 hides a position, 1 shows it, values in between blend.

        Returns:
            Scores `[n]`.
        """
        self.evaluations += len(keep)
        return self._score(self._spec.mask(self._sample, keep)).astype(np.float64)

    def batches(self, total: int, minimum: int, *, endless: bool = False) -> Iterator[int]:
        """Yield batch sizes until all evaluations are done or the budget is used up.

        Args:
            total: number of evaluations without a budget; also with one, unless `endless`.
            minimum: evaluations needed for a map, performed even beyond the budget.
            endless: True continues beyond `total` while the budget lasts.
        """
        if endless and self.budget_ms is not None:
            total = max(_MAX_EVALUATIONS, minimum)
        done = 0
        while done < total and (done < minimum or self.budget_ms is None or self.elapsed_ms < self.budget_ms):
            size = min(_BATCH, total - done)
            yield size
            done += size
            if self.budget_ms is None:
                self._progress(_STEP, done, total)
            else:
                self._progress(_STEP, min(round(self.elapsed_ms), round(self.budget_ms)), round(self.budget_ms))

    def estimate(self, saliency_map: Doubles, standard_error: Doubles) -> MapEstimate:
        """Return the estimate with the evaluations and elapsed time so far."""
        return MapEstimate(
            saliency_map.astype(np.float32), standard_error.astype(np.float32), self.evaluations, self.elapsed_ms
        )
