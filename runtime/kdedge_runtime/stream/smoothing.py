"""Predictions over time: mean scores of recent frames, and events that are not repeated within a time."""

from collections import defaultdict, deque
from dataclasses import replace

import numpy as np

from kdedge_runtime.prediction import Prediction
from kdedge_runtime.util.arrays import Floats

__all__ = ["EventFilter", "ScoreSmoother"]

_MIN_SHARE = 0.5
"""Smallest score of an event as a fraction of its range."""
_NO_EVENT = "_"
"""First character of labels that are not events."""
_EPSILON_S = 1e-6


class ScoreSmoother:
    """Mean of the scores of the frames within a time, for each region."""

    def __init__(self, duration_s: float) -> None:
        """Create a smoother for frames of the last `duration_s` seconds."""
        self._duration_s = duration_s
        self._recent: defaultdict[str | None, deque[tuple[float, Floats]]] = defaultdict(deque)

    def smooth(self, region: str | None, at_s: float, scores: Floats) -> Floats:
        """Add the scores `[K]` of a frame and return the mean `[K]`; enrolled classes start anew."""
        recent = self._recent[region]
        if recent and recent[-1][1].shape != scores.shape:
            recent.clear()
        recent.append((at_s, scores))
        while recent[0][0] <= at_s - self._duration_s + _EPSILON_S and len(recent) > 1:
            recent.popleft()
        mean: Floats = np.stack([each for _, each in recent]).mean(axis=0)
        return mean


class EventFilter:
    """Marks events: predictions that are not unknown, with half of the score range or more.

    Labels that begin with `_`, such as `_silence_`, are not events. After an event of a region, predictions of the same
    label are not events for the refractory time.
    """

    def __init__(self, refractory_s: float) -> None:
        """Create a filter with a refractory time in seconds."""
        self._refractory_s = refractory_s
        self._last: dict[tuple[str | None, str], float] = {}

    def mark(self, prediction: Prediction, at_s: float) -> Prediction:
        """Return the prediction for a frame at a time with `Prediction.event` in every region."""
        first, *further = (replace(each, event=self._is_event(each, at_s)) for each in prediction.by_region)
        return replace(first, further=tuple(further))

    def _is_event(self, prediction: Prediction, at_s: float) -> bool:
        share = prediction.share
        if prediction.unknown or prediction.label.startswith(_NO_EVENT) or (share is not None and share < _MIN_SHARE):
            return False
        key = prediction.region_name, prediction.label
        last = self._last.get(key)
        if last is not None and at_s - last < self._refractory_s - _EPSILON_S:
            return False
        self._last[key] = at_s
        return True
