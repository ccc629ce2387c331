"""Predictions sent to browsers, so that feedback refers to exactly the frame on the screen."""

import threading
from collections import OrderedDict
from dataclasses import replace

from kdedge_runtime.prediction import Answer

__all__ = ["Shown"]

_MOST_BYTES = 12_000_000
_LEAST_FRAMES = 3
_MOST_HELD = 8


class Shown:
    """Keeps the latest sent predictions by serial number, in bounded memory, and those on hold."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._recent: OrderedDict[int, Answer] = OrderedDict()
        self._held: OrderedDict[int, Answer] = OrderedDict()

    def add(self, serial: int, answer: Answer) -> None:
        """Record that a prediction was sent to browsers."""
        with self._lock:
            self._recent[serial] = replace(answer, overlay=None)
            # All frames of a run have the same size.
            most = max(_LEAST_FRAMES, _MOST_BYTES // max(answer.frame.rgb.nbytes, 1))
            while len(self._recent) > most:
                self._recent.popitem(last=False)

    def hold(self, serial: int) -> Answer | None:
        """Put a prediction on hold; at most eight are kept, latest first. Return None if it is no longer available."""
        with self._lock:
            answer = self._find(serial)
            if answer is not None:
                self._held[serial] = answer
                self._held.move_to_end(serial)
                while len(self._held) > _MOST_HELD:
                    self._held.popitem(last=False)
            return answer

    def find(self, serial: int) -> Answer | None:
        """Return a prediction by serial number; None if it is no longer available."""
        with self._lock:
            return self._find(serial)

    def _find(self, serial: int) -> Answer | None:
        return self._held.get(serial) or self._recent.get(serial)
