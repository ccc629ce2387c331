"""The notice board between the run and its watchers: the run pins the newest answer, nobody holds it up."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from kdedge_runtime.prediction import Answer
from kdedge_runtime.server.live_view.history import History
from kdedge_runtime.server.live_view.sent_frames import Shown
from kdedge_runtime.stream.statistics import Progress
from kdedge_runtime.util.arrays import Pixels
from kdedge_runtime.util.images import jpeg

__all__ = ["FRESH_S", "Board", "Notice", "Picture"]

FRESH_S = 10.0
"""A run whose last answer is older is not healthy."""
_JPEG_QUALITY = 80
_FASTEST_S = 1 / 15
"""Between pictures: an eye needs no more, and drawing them takes processor time from the model."""
_MOST_SHARE = 0.02
"""Largest share of a core for encoding and sending pictures; with many viewers they come less often."""
_LEASE_S = 1.0
"""A page that asks for picture after picture is watching in between as well."""


@dataclass(frozen=True)
class Notice:
    """One answer on the board."""

    serial: int
    """Counts the answers from 1."""
    answer: Answer
    progress: Progress
    pinned_at: float


@dataclass(frozen=True)
class Picture:
    """An overlay as it goes out."""

    serial: int
    jpeg: bytes


class Board:
    """Holds the newest answer; the run writes, any number of watchers wait and read."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Start empty.

        Args:
            clock: seconds.
        """
        self.shown = Shown()
        self.history = History()
        self.watchers = 0
        self._clock = clock
        self._changed = threading.Condition()
        self._encoding = threading.Lock()
        self._encoded = Picture(0, b"")
        self._notice: Notice | None = None
        self._drawn: tuple[Notice, Pixels] | None = None
        self._due_at = 0.0
        self._encoding_s = self._cost_s = 0.0
        self._answered_at = clock()
        self._leased_until = -1.0
        self._closed = False

    @property
    def newest(self) -> Notice | None:
        """The newest answer; None before the first."""
        return self._notice

    @property
    def is_watched(self) -> bool:
        """Whether anybody wants to see the next answer."""
        return self.watchers > 0 or self._clock() < self._leased_until

    @property
    def is_due(self) -> bool:
        """True where the next answer should carry its overlay."""
        return self.is_watched and self._clock() >= self._due_at

    def note_cost(self, sending_s: float) -> None:
        """Take in the processor time that sending a picture to all viewers took."""
        self._cost_s = sending_s

    def publish(self, answer: Answer, progress: Progress) -> None:
        """Pin the newest answer and wake the watchers."""
        now = self._clock()
        self.history.add(now, answer.label, answer.probability)
        with self._changed:
            serial = 1 if self._notice is None else self._notice.serial + 1
            self._notice = Notice(serial, answer, progress, now)
            self._answered_at = now
            if answer.overlay is not None and now >= self._due_at:
                self._drawn = self._notice, answer.overlay
                self._due_at = now + max(_FASTEST_S, (self._encoding_s + self._cost_s) / _MOST_SHARE)
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

    def renew_lease(self) -> None:
        """Let answers carry their overlay for another second, for a page that will ask again."""
        self._leased_until = self._clock() + _LEASE_S

    def next_picture(self, after: int, timeout_s: float) -> Picture | None:
        """Wait for an overlay that is newer than number `after`; any is newer than one that is still to come.

        Returns:
            None when the run has ended or nothing came in time.
        """
        deadline = time.monotonic() + timeout_s
        with self._changed:
            if self._notice is None or after > self._notice.serial:
                after = 0  # of an earlier run, which had come further
            while (drawn := self._drawn) is None or drawn[0].serial <= after or self._is_old(drawn[0]):
                remaining = deadline - time.monotonic()
                if self._closed or remaining <= 0:
                    return None
                self._changed.wait(remaining)
        notice, overlay = drawn
        # Outside the condition, so that the run is not held up; once a picture, whoever comes first.
        with self._encoding:
            if self._encoded.serial < notice.serial:
                started = time.thread_time()
                self._encoded = Picture(notice.serial, jpeg(overlay, _JPEG_QUALITY))
                self._encoding_s = time.thread_time() - started
                self.shown.add(notice.serial, notice.answer)
            return self._encoded

    def _is_old(self, drawn: Notice) -> bool:
        """Whether it was drawn for somebody who has left since."""
        # Not by its capture: an explanation may take longer than a page waits before it asks again.
        return self._clock() - drawn.pinned_at > _LEASE_S

    def health(self) -> tuple[bool, float]:
        """Whether answers are coming, and the seconds since the last one (or since the start)."""
        silence_s = self._clock() - self._answered_at
        return silence_s < FRESH_S, silence_s
