"""Confidence over the last minute, at half-second resolution."""

import threading
from collections import deque

__all__ = ["SPAN_S", "ConfidenceHistory"]

SPAN_S = 60.0
_STEP_S = 0.5


class ConfidenceHistory:
    """Latest prediction of every half second, in constant memory."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._points: deque[tuple[float, str, float]] = deque(maxlen=round(SPAN_S / _STEP_S))

    def add(self, at_s: float, label: str, share: float) -> None:
        """Add a prediction. A later one in the same half second replaces it."""
        with self._lock:
            if self._points and at_s // _STEP_S == self._points[-1][0] // _STEP_S:
                self._points[-1] = (at_s, label, share)
            else:
                self._points.append((at_s, label, share))

    def until(self, now_s: float) -> list[tuple[float, str, float]]:
        """Return the points of the last minute as `(seconds ago, label, share)`, oldest first."""
        with self._lock:
            points = list(self._points)
        return [(now_s - at_s, label, p) for at_s, label, p in points if now_s - at_s <= SPAN_S]
