"""Predictions sent to browsers, so that feedback refers to exactly the frame on the screen."""

import threading
from collections import OrderedDict
from dataclasses import replace

from kdedge_runtime.prediction import Prediction

__all__ = ["SentFrames"]

_MAX_BYTES = 12_000_000
_MIN_FRAMES = 3
_MAX_KEPT = 8


class SentFrames:
    """Keeps the latest sent predictions by serial number, in bounded memory, and those on hold."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._recent: OrderedDict[int, Prediction] = OrderedDict()
        self._held: OrderedDict[int, Prediction] = OrderedDict()

    def add(self, serial: int, prediction: Prediction) -> None:
        """Record that a prediction was sent to browsers."""
        with self._lock:
            self._recent[serial] = replace(prediction, overlay=None)
            # All frames of a run have the same size.
            most = max(_MIN_FRAMES, _MAX_BYTES // max(prediction.frame.sample.nbytes, 1))
            while len(self._recent) > most:
                self._recent.popitem(last=False)

    def hold(self, serial: int) -> Prediction | None:
        """Put a prediction on hold; at most eight are kept, latest first. Return None if it is no longer available."""
        with self._lock:
            prediction = self._find(serial)
            if prediction is not None:
                self._held[serial] = prediction
                self._held.move_to_end(serial)
                while len(self._held) > _MAX_KEPT:
                    self._held.popitem(last=False)
            return prediction

    def find(self, serial: int) -> Prediction | None:
        """Return a prediction by serial number; None if it is no longer available."""
        with self._lock:
            return self._find(serial)

    def _find(self, serial: int) -> Prediction | None:
        return self._held.get(serial) or self._recent.get(serial)
