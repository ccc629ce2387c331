"""The notice board between the run and its watchers: the run pins the newest answer, nobody holds it up."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from kdedge_runtime.answer import Answer
from kdedge_runtime.pictures import jpeg
from kdedge_runtime.progress import Progress

__all__ = ["FRESH_S", "Board"]

FRESH_S = 10.0
"""A run whose last answer is older is not healthy."""
_JPEG_QUALITY = 80


class Board:
    """Holds the newest answer; the run writes, any number of watchers wait and read."""

    def __init__(self, about: Mapping[str, str], clock: Callable[[], float] = time.monotonic) -> None:
        """Start empty.

        Args:
            about: what is said of the run itself, shown as it is.
            clock: the clock of `Frame.captured_at`.
        """
        self._about = dict(about)
        self._clock = clock
        self._changed = threading.Condition()
        self._encoding = threading.Lock()
        self._encoded: tuple[int, bytes] = (0, b"")
        self._answer: Answer | None = None
        self._progress: Progress | None = None
        self._answered_at = clock()
        self._serial = 0
        self._closed = False
        self.watchers = 0

    def publish(self, answer: Answer, progress: Progress) -> None:
        """Pin the newest answer and wake the watchers."""
        with self._changed:
            self._answer, self._progress = answer, progress
            self._answered_at = self._clock()
            self._serial += 1
            self._changed.notify_all()

    def close(self) -> None:
        """Send all watchers home."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Within the block answers carry their overlay."""
        with self._changed:
            self.watchers += 1
        try:
            yield
        finally:
            with self._changed:
                self.watchers -= 1

    def next_picture(self, after: int, timeout_s: float) -> tuple[int, bytes] | None:
        """Wait for an overlay that is newer than number `after`.

        Returns:
            Its number and JPEG, or None when the run has ended or nothing came in time.
        """
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while (answer := self._answer) is None or answer.overlay is None or self._serial <= after:
                remaining = deadline - time.monotonic()
                if self._closed or remaining <= 0:
                    return None
                self._changed.wait(remaining)
            serial, overlay = self._serial, answer.overlay
        # Outside the condition, so that the run is not held up; once a picture, whoever comes first.
        with self._encoding:
            if self._encoded[0] < serial:
                self._encoded = (serial, jpeg(overlay, _JPEG_QUALITY))
            return self._encoded

    def health(self) -> tuple[bool, float]:
        """Whether answers are coming, and the seconds since the last one (or since the start)."""
        silence_s = self._clock() - self._answered_at
        return silence_s < FRESH_S, silence_s

    def metrics(self) -> dict[str, Any]:
        """All figures, ready for JSON."""
        with self._changed:
            answer, progress = self._answer, self._progress
        figures: dict[str, Any] = {"about": self._about, "watchers": self.watchers}
        if answer is None or progress is None:
            return figures | {"frames": 0}
        return figures | {
            "frames": progress.frames,
            "expected": progress.expected,
            "dropped": progress.dropped,
            "unreadable": progress.unreadable,
            "fps": round(progress.recent_fps, 2),
            "frame": answer.frame.index,
            "age_ms": round(answer.age_ms, 2),
            "label": answer.label,
            "p": round(answer.probability, 5),
            "ranking": [{"label": label, "p": round(p, 5)} for label, p in answer.ranking],
            "explained": answer.explained,
            "heat": None if answer.heat is None else asdict(answer.heat),
            "stages": {
                name: {key: round(value, 3) for key, value in asdict(stage).items() if key != "count"}
                for name, stage in progress.timer.stages().items()
            },
        }
