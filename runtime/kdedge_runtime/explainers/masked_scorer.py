"""A picture with parts hidden, put before the model until the time is up."""

import time
from collections.abc import Callable, Iterator
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from kdedge_runtime.explainers.estimate import Estimate, Progress
from kdedge_runtime.util.arrays import Floats, Pixels

__all__ = ["Doubles", "Probe", "Score", "Truths"]

Doubles: TypeAlias = NDArray[np.float64]
Truths: TypeAlias = NDArray[np.bool_]
Score: TypeAlias = Callable[[Pixels], Floats]
"""What the model says of pictures uint8 `[n, H, W, 3]`: one number each, `[n]`."""
_BATCH = 8
"""Pictures a forward pass: larger batches gain little on a CPU, and the time is looked at between them."""
_MOST_EVALUATIONS = 100_000


class Probe:
    """One explanation in the making: it hides, asks, counts and watches the clock."""

    def __init__(
        self,
        score: Score,
        image: Pixels,
        hidden: Pixels,
        *,
        budget_ms: float | None = None,
        seed: int = 0,
        progress: Progress | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start the clock.

        Args:
            score: the model.
            image: uint8 RGB `[H, W, 3]`.
            hidden: the colour that hidden parts become, uint8 RGB `[3]`.
            budget_ms: time for the whole explanation; None for each method's own number of evaluations.
            seed: of all that is drawn.
            progress: is called after each batch.
            clock: in seconds.
        """
        self.height, self.width = image.shape[:2]
        self.rng = np.random.default_rng(seed)
        self.budget_ms = budget_ms
        self.evaluations = 0
        self._score = score
        self._hidden = np.broadcast_to(hidden, image.shape).astype(np.float32)
        self._shown = image.astype(np.float32) - self._hidden
        self._progress = progress
        self._clock = clock
        self._started = clock()

    @property
    def elapsed_ms(self) -> float:
        """Since the start."""
        return (self._clock() - self._started) * 1e3

    def ask(self, keep: Floats) -> Doubles:
        """Score the picture with parts of it hidden.

        Args:
            keep: `[n, H, W]` in [0, 1]; 0 hides a pixel, 1 shows it, between them the two are blended.

        Returns:
            `[n]`.
        """
        self.evaluations += len(keep)
        blended = self._hidden + keep[..., None].astype(np.float32) * self._shown
        return self._score(np.rint(blended).astype(np.uint8)).astype(np.float64)

    def batches(self, total: int, minimum: int, *, endless: bool = False) -> Iterator[int]:
        """Sizes of the next batches, until all is done or the time is up.

        Args:
            total: evaluations without a budget, and with one unless `endless`.
            minimum: evaluations that are made even if they take longer than the budget: before them there is no map.
            endless: with a budget, go on beyond `total` while there is time.
        """
        if endless and self.budget_ms is not None:
            total = max(_MOST_EVALUATIONS, minimum)
        done = 0
        while done < total and (done < minimum or self.budget_ms is None or self.elapsed_ms < self.budget_ms):
            size = min(_BATCH, total - done)
            yield size
            done += size
            if self._progress is None:
                continue
            if self.budget_ms is None:
                self._progress(done, total)
            else:
                self._progress(min(round(self.elapsed_ms), round(self.budget_ms)), round(self.budget_ms))

    def estimate(self, saliency_map: Doubles, standard_error: Doubles) -> Estimate:
        """Stop the clock."""
        return Estimate(
            saliency_map.astype(np.float32), standard_error.astype(np.float32), self.evaluations, self.elapsed_ms
        )
